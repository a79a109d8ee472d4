"""Every config key with its default; the other files of this folder override some.

Not to be run by itself: it names no data set.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    # Seed of the sampled cells, the mini-batch and the weights: a whole number below 2^32.
    config.seed = 0
    # Cells handed to a device at a time: a number, or "auto" to fit its memory.
    config.cells_per_step = "auto"

    config.data = ml_collections.ConfigDict()
    # digits, cifar10, cifar100, imagenet16_120, or for a data set of your own npz or folder.
    config.data.name = ""
    # The official archive of a known data set, the folder extracted from it, or an .npz file with
    # the two arrays named below; for a folder, the folder of images by class.
    config.data.path = ""
    # Without a path, get the official archive of a CIFAR and keep it in the user's cache.
    config.data.download = False
    # Side in pixels: a folder's images are resized to it, others averaged over squares (it must
    # divide their side); 0: as they are.
    config.data.side = 0
    config.data.images_key = "x_train"
    config.data.labels_key = "y_train"
    config.data.batch_size = 256
    # As many images of each class as possible, and none alone in its class.
    config.data.class_balanced = False
    # Random crop after padding (4 for 32 pixels, 2 for 16), and horizontal flip.
    config.data.augment = False
    # A mini-batch of its own for every cell, as in the released code.
    config.data.fresh_minibatch = False

    config.space = ml_collections.ConfigDict()
    # nasbench201, darts, nasbench301, nasbench101, transnas_micro or nats_sss.
    config.space.name = "nasbench201"

    config.network = ml_collections.ConfigDict()
    # Channels of the first of three stages, and cells in each; between the stages stand reduction
    # blocks (nasbench201) or cells (darts, whose paper has 36 channels and 6 cells a stage;
    # nasbench301: 32 and 2). Other spaces have stages of their own (docs/spaces.md).
    config.network.channels = 16
    config.network.cells_per_stage = 5

    config.score = ml_collections.ConfigDict()
    # What the search maximises: a column of scores.csv, such as epe, or epe_two_branch for the
    # paper's other formula above 100 classes; several, such as ("jacob_cov", "live_params"), are
    # ranked together among the cells scored so far.
    config.score.objective = ("epe",)
    # Further proxies as columns of scores.csv (docs/ranking.md, "Every proxy"), or latency_ms.
    config.score.proxies = ()
    # How ranks are added up: "log_rank_sum" or "rank_sum".
    config.score.combine = "log_rank_sum"
    # "shared" weights for all cells, or "independent" ones for each.
    config.score.init = "shared"
    # What GPUs and TPUs may round factors to: "float32" (not at all), "tensorfloat32", "bfloat16".
    # With these two they also keep outputs of convolutions in bfloat16 for the backward pass, and
    # with the last one layers put out bfloat16 (nasbench201 only).
    config.score.precision = "float32"
    # Scores are averaged over this many draws of the weights.
    config.score.num_inits = 1
    # Leave out operations on no path from input to output, and score equal cells once.
    config.score.prune_dead = True

    config.search = ml_collections.ConfigDict()
    # random, evolution, local or nsga2, which searches for the best cells at every cost.
    config.search.algorithm = "random"
    # How many different cells are scored.
    config.search.num_samples = 100
    # Random search only: whether a cell may be drawn twice, as in the released code.
    config.search.replace = False
    # All but random: cells to score at a time. Fewer learn more from each, more use a
    # GPU better; 24 is the number of a cell's neighbours.
    config.search.candidates_per_step = 24
    # Evolution and nsga2: cells alive. Evolution: how many of them compete to be a parent.
    config.search.population = 30
    config.search.tournament = 10
    # nsga2: the cost, one of those that the limits below are of.
    config.search.cost = "params"
    # Only score cells with at most so many parameters and millions of FLOPs, counted as built
    # and for images of data.side, or such a latency in milliseconds; 0: no limit.
    config.search.max_params = 0
    config.search.max_mflops = 0.0
    config.search.max_latency_ms = 0.0
    # The latency is a column of scores.csv if it is limited, a cost, read from a table or named in
    # score.proxies. Without a table it is that of a forward pass of so many images of data.side on
    # this machine, measured of each network once (docs/search.md, "Latency").
    config.search.latency_batch = 1
    # Latencies by arch string, as CSV or JSON, and the column.
    config.search.latency_path = ""
    config.search.latency_column = ""
    # Score this share of the best cells again at the setting below, and put them first; 0: do not.
    config.search.refine = 0.0

    # Only read with search.refine: the full setting, where that of the search above is a cheap one.
    # Everything else is as there.
    config.refine = ml_collections.ConfigDict()
    # As data.side and data.batch_size.
    config.refine.side = 0
    config.refine.batch_size = 256
    # As network.channels and network.cells_per_stage.
    config.refine.channels = 16
    config.refine.cells_per_stage = 5
    # As score.num_inits.
    config.refine.num_inits = 1

    config.benchmark = ml_collections.ConfigDict()
    # Trained accuracies in percent by arch string, as CSV, JSON or NATS-Bench's own files, and the
    # column.
    config.benchmark.path = ""
    config.benchmark.column = ""

    # Only read by the train command: the cell as an arch string, or the directory of a finished
    # search, whose best cell it is.
    config.arch = ""
    config.from_run = ""
    config.train = ml_collections.ConfigDict()
    # Trainings with the seeds seed, seed + 1, ...
    config.train.num_seeds = 1
    config.train.epochs = 200
    config.train.batch_size = 256
    config.train.learning_rate = 0.1
    config.train.momentum = 0.9
    config.train.weight_decay = 5e-4
    config.train.augment = True
    # The share of an image's target that all classes have alike.
    config.train.label_smoothing = 0.0
    # Count the loss of an image by the inverse of how many images its class has.
    config.train.balance_classes = False
    # What GPUs and TPUs may round factors to, as score.precision; CPUs do not.
    config.train.precision = "float32"
    # With train.validation: end after so many epochs without a better accuracy, and keep the
    # network of the best epoch; 0: train for all epochs, and keep that of the last one.
    config.train.patience = 0
    # Train on half of the training images and measure accuracy on the other half.
    config.train.validation = False

    # Only read by the compare command.
    config.compare = ml_collections.ConfigDict()
    config.compare.num_cells = 50
    # One cell of your own instead, as an arch string, and its weights: a file that
    # torch.save(network.state_dict(), path) wrote.
    config.compare.arch = ""
    config.compare.checkpoint = ""
    # A checkout of the released EPE-NAS code, to use its network instead of xautodl's.
    config.compare.pytorch_path = ""
    return config
