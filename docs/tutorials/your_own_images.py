# %% [markdown]
# # Your own images
#
# From a folder of images, one folder for each class, to a trained network and its mistakes. The
# folder is made here of handwritten digits; put yours in its place. Sizes are small, so that this
# page is built in about a minute.

# %%
import os
import tempfile
from pathlib import Path

from PIL import Image

from epe_nas_jax import load_dataset

work = Path(tempfile.mkdtemp())
os.environ["WORK"] = str(work)
digits = load_dataset("digits")
for number, (image, label) in enumerate(
    zip(digits.images[:1000], digits.labels, strict=False)
):
    split = "test" if number % 5 == 0 else "train"
    folder = work / "images" / split / f"digit {label}"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{number}.png")
sorted(path.name for path in (work / "images" / "train").iterdir())

# %% [markdown]
# ## Choose a cell
#
# The commands run in a terminal; `%%bash` starts them from a notebook.
# `--config=fast` ranks by five signals on 32 images of 8x8 pixels;
# `data.class_balanced` takes as many of each class as possible.

# %% language="bash"
# epe-nas search --config=fast --workdir=$WORK/search \
#     --config.data.name=folder --config.data.path=$WORK/images \
#     --config.data.side=8 --config.data.class_balanced=True \
#     --config.search.num_samples=60

# %% [markdown]
# `report.html` in the work directory is the page to look at. The same numbers, for your own
# plots:

# %%
import pandas as pd

pd.read_csv(work / "search" / "scores.csv").sort_values(
    "score", ascending=False
).head()

# %% [markdown]
# ## Train it
#
# Four epochs here; 200 are the default.

# %% language="bash"
# epe-nas train --config=folder --workdir=$WORK/train \
#     --config.data.path=$WORK/images --config.data.side=8 \
#     --config.from_run=$WORK/search --config.train.epochs=4 \
#     --config.train.batch_size=64 --config.train.augment=False

# %%
metrics = pd.read_csv(work / "train" / "metrics.csv")
axes = metrics.plot(
    x="epoch",
    y=["train_accuracy", "test_accuracy"],
    ylabel="accuracy, %",
    figsize=(5, 3),
)
# %% [markdown]
# ## Use it

# %%
from epe_nas_jax import load_trained

trained = load_trained(work / "train")
test = load_dataset("folder", str(work / "images"), side=8, split="test")
probabilities = trained.predict(test.images)
predicted = probabilities.argmax(axis=1)
f"{100 * (predicted == test.labels).mean():.1f} % of {len(test.labels)} test images"

# %% [markdown]
# What is taken for what:

# %%
names = [name.removeprefix("digit ") for name in trained.class_names]
pd.crosstab(
    pd.Series([names[label] for label in test.labels], name="is"),
    pd.Series([names[label] for label in predicted], name="taken for"),
)

# %% [markdown]
# [From your own images to a network in use](../your-own-images.md) is the same way at full size,
# and goes on to PyTorch and ONNX; [data sets and tables](../data.md) lists every format.
