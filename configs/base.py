"""Every config key with its default; the other files of this folder override some.

Not to be run by itself: it names no data set.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    # Seed of the sampled cells, the mini-batch and the weights.
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
    # Side in pixels to which the images of a folder are resized; 0: as they are.
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

    config.network = ml_collections.ConfigDict()
    config.network.channels = 16
    config.network.cells_per_stage = 5

    config.score = ml_collections.ConfigDict()
    # "released", or "two_branch" for the paper's other formula above 100 classes.
    config.score.variant = "released"
    # Further columns of scores.csv from the same pass: epe_two_branch, jacob_cov, nwot.
    config.score.proxies = ()
    # "shared" weights for all cells, or "independent" ones for each.
    config.score.init = "shared"
    # Scores are averaged over this many draws of the weights.
    config.score.num_inits = 1
    # Leave out operations on no path from input to output, and score equal cells once.
    config.score.live_form = True

    config.search = ml_collections.ConfigDict()
    config.search.num_samples = 100
    # Whether a cell may be drawn twice, as in the released code.
    config.search.replace = False

    config.benchmark = ml_collections.ConfigDict()
    # Trained accuracies by arch string, as CSV, JSON or NATS-Bench's own files, and the column.
    config.benchmark.path = ""
    config.benchmark.column = ""

    # Only read by epe_nas_jax.compare.
    config.compare = ml_collections.ConfigDict()
    config.compare.num_cells = 50
    # One cell of your own instead, as an arch string, and its weights: a file that
    # torch.save(network.state_dict(), path) wrote.
    config.compare.arch = ""
    config.compare.checkpoint = ""
    # A checkout of the released EPE-NAS code, to use its network instead of xautodl's.
    config.compare.pytorch_path = ""
    return config
