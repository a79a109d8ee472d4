"""Every config key with its default; the other files of this folder override some.

Not to be run by itself: it names no data set. The documentation of a key is the comment above it.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    # Seed of the sampled cells, the mini-batch and the weights: a whole number from 0 to 2^32 - 1.
    config.seed = 0
    # How many cells a device scores at a time: a number, or "auto" to fit its memory. It changes
    # no score.
    config.cells_per_step = "auto"

    config.data = ml_collections.ConfigDict()
    # The data set: digits, cifar10, cifar100 or imagenet16_120, or a data set of your own in an
    # .npz file (npz) or in a folder of images by class (folder).
    config.data.name = ""
    # Where the data set is: the official archive of a known data set, the folder extracted from it,
    # or an .npz file; for data.name=folder, the folder of images by class. digits needs no
    # path. In every path ~ is your home directory.
    config.data.path = ""
    # If no path is given, download the official archive of cifar10 or cifar100 and keep it in the
    # user's cache directory.
    config.data.download = False
    # Side of the images in pixels, a multiple of 4: images of a folder are resized to it, others
    # averaged over squares, for which it must divide their side. 0: images stay as they are.
    config.data.side = 0
    # Name of the training images in an .npz file. For test images, its "train" becomes "test".
    config.data.images_key = "x_train"
    # Name of the training labels in an .npz file. For test labels, its "train" becomes "test".
    config.data.labels_key = "y_train"
    # Number of images in the mini-batch on which cells are scored, at least 2.
    config.data.batch_size = 256
    # Draw as many images of each class as possible into the mini-batch, and no class with a single
    # image.
    config.data.class_balanced = False
    # Augment the mini-batch: random crop after padding (by 4 for 32 pixels, 2 for 16), and
    # horizontal flip.
    config.data.augment = False
    # Draw a new mini-batch for every cell, as in the released code.
    config.data.fresh_minibatch = False

    config.space = ml_collections.ConfigDict()
    # The search space: nasbench201, darts, nasbench301, nasbench101, transnas_micro or nats_sss.
    config.space.name = "nasbench201"

    config.network = ml_collections.ConfigDict()
    # Number of channels of the network's first stage. The paper of DARTS has 36, NAS-Bench-301 has
    # 32; spaces other than these and nasbench201 have stages of their own (docs/spaces.md).
    config.network.channels = 16
    # Number of cells in each of the three stages, between which there are reduction blocks
    # (nasbench201) or reduction cells (darts, nasbench301). The paper of DARTS has 6, NAS-Bench-301
    # has 2.
    config.network.cells_per_stage = 5

    config.score = ml_collections.ConfigDict()
    # What the search maximises: a column of scores.csv, such as epe, or epe_two_branch for the
    # paper's other formula above 100 classes. Several columns, such as ("jacob_cov",
    # "live_params"), are ranked together among the cells scored so far.
    config.score.objective = ("epe",)
    # Further columns of scores.csv: proxies (docs/ranking.md, "Every proxy"), or latency_ms.
    config.score.proxies = ()
    # How the ranks of several columns are added up: "log_rank_sum" or "rank_sum".
    config.score.combine = "log_rank_sum"
    # Weights of the cells: "shared" by all cells, or "independent" for each cell.
    config.score.init = "shared"
    # To what GPUs and TPUs may round the factors of products: "float32" (not at all),
    # "tensorfloat32" or "bfloat16". With the last two they also keep outputs of convolutions in
    # bfloat16 for the backward pass, and with "bfloat16" layers return bfloat16 (nasbench201 only).
    config.score.precision = "float32"
    # Number of draws of the weights over which scores are averaged, at least 1.
    config.score.num_inits = 1
    # Leave out operations on no path from input to output, and score equal cells once. It changes
    # no score.
    config.score.prune_dead = True

    config.search = ml_collections.ConfigDict()
    # The search algorithm: random, evolution, local, or nsga2, which searches for the best cells at
    # every cost.
    config.search.algorithm = "random"
    # How many cells are scored, all different unless search.replace is set.
    config.search.num_samples = 100
    # Only for random search: whether a cell may be drawn twice, as in the released code.
    config.search.replace = False
    # For all algorithms but random: how many cells are scored at a time. With fewer the search
    # learns more from each, with more it uses a GPU better; a nasbench201 cell has 24 neighbours.
    config.search.candidates_per_step = 24
    # Only for evolution and nsga2: the number of cells in the population.
    config.search.population = 30
    # Only for evolution: how many cells of the population compete to be a parent.
    config.search.tournament = 10
    # Only for nsga2: the cost of a cell: "params", "mflops" or "latency_ms".
    config.search.cost = "params"
    # Only score cells with at most this many parameters, dead operations included; 0: no limit.
    config.search.max_params = 0
    # Only score cells with at most this many millions of FLOPs, for images of data.side, dead
    # operations included; 0: no limit.
    config.search.max_mflops = 0.0
    # Only score cells with at most this latency in milliseconds; 0: no limit. Latency is measured
    # on this machine, once per network, or read from search.latency_path, and is then a column
    # latency_ms of scores.csv (docs/search.md, "Latency").
    config.search.max_latency_ms = 0.0
    # Number of images of data.side in the forward pass whose latency is measured, at least 1.
    config.search.latency_batch = 1
    # A table of latencies by arch string, CSV or JSON, that is read instead of measuring.
    config.search.latency_path = ""
    # The column of latencies, in milliseconds, in search.latency_path.
    config.search.latency_column = ""
    # Score this share of the best cells, from 0 to 1, again at the full setting, which the keys
    # refine.* describe, and put them first; 0: score none again.
    config.search.refine = 0.0

    config.refine = ml_collections.ConfigDict()
    # Only with search.refine: data.side of the full setting, in pixels; 0: images as they are.
    config.refine.side = 0
    # Only with search.refine: data.batch_size of the full setting.
    config.refine.batch_size = 256
    # Only with search.refine: network.channels of the full setting.
    config.refine.channels = 16
    # Only with search.refine: network.cells_per_stage of the full setting.
    config.refine.cells_per_stage = 5
    # Only with search.refine: score.num_inits of the full setting.
    config.refine.num_inits = 1

    config.benchmark = ml_collections.ConfigDict()
    # A table of trained accuracies in percent by arch string: CSV, JSON or NATS-Bench's own files.
    config.benchmark.path = ""
    # The column of accuracies in benchmark.path, such as cifar10_test_200.
    config.benchmark.column = ""

    # Only for the train command: the cell to train, as an arch string; or else give from_run.
    config.arch = ""
    # Only for the train command: the work directory of a finished search, whose best cell is
    # trained; or else give arch.
    config.from_run = ""
    config.train = ml_collections.ConfigDict()
    # Number of trainings, with the seeds seed, seed + 1 and so on.
    config.train.num_seeds = 1
    # Number of passes over the training images, at least 1.
    config.train.epochs = 200
    # Number of images in a mini-batch of training, at least 2.
    config.train.batch_size = 256
    # The learning rate at the start; it falls to 0 along half a cosine and is constant in an epoch.
    config.train.learning_rate = 0.1
    # Nesterov momentum of SGD, at least 0 and below 1.
    config.train.momentum = 0.9
    # Weight decay: this times a weight is added to its gradient.
    config.train.weight_decay = 5e-4
    # Augment training images: random crop after padding (by 4 for 32 pixels, 2 for 16), and
    # horizontal flip.
    config.train.augment = True
    # The share of an image's target that is spread evenly over all classes, at least 0 and below 1.
    config.train.label_smoothing = 0.0
    # Weight the loss of an image by the inverse of the number of images of its class.
    config.train.balance_classes = False
    # To what GPUs and TPUs may round the factors of products in training: "float32" (not at all),
    # "tensorfloat32" or "bfloat16". CPUs never round.
    config.train.precision = "float32"
    # With train.validation: end after this many epochs without a better accuracy, and keep the
    # network of the best epoch. 0: train for all epochs, and keep the network of the last one.
    config.train.patience = 0
    # Train on half of the training images and measure accuracy on the other half, not on the test
    # images.
    config.train.validation = False

    config.compare = ml_collections.ConfigDict()
    # Only for the compare command: how many cells are compared with PyTorch.
    config.compare.num_cells = 50
    # Only for the compare command: one cell of your own to compare instead, as an arch string.
    config.compare.arch = ""
    # Only for the compare command: weights of the cell compare.arch, a file that
    # torch.save(network.state_dict(), path) wrote.
    config.compare.checkpoint = ""
    # Only for the compare command: a checkout of the released EPE-NAS code, whose network is used
    # instead of xautodl's.
    config.compare.pytorch_path = ""
    return config
