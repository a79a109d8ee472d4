r"""The export command: a trained network as StableHLO, PyTorch and ONNX.

Command:  epe-nas export --from_run=runs/train --out=exported
"""

from absl import flags

from epe_nas_jax.commands.cli import run_with_trained
from epe_nas_jax.exports.table import export_files
from epe_nas_jax.runs.storage import check_new_folder, local_path, write_folder
from epe_nas_jax.training.trained import load_trained


def export_run(from_run: str, out: str, seed: int | None = None) -> str:
    """Writes a folder with a trained network in every format, completely or not at all.

    Args:
      from_run: the work directory of a finished training.
      out: the folder, which is created if it does not exist.
      seed: one of the seeds that were trained; None: the first one.

    Returns:
      The files and their sizes, one per line.

    Raises:
      InputError: as `load_trained` and `export_files`; or `out` exists and is no empty folder.
    """
    folder = local_path(out)
    check_new_folder(folder)
    files = export_files(load_trained(from_run, seed=seed))
    write_folder(folder, files)
    return "\n".join(f"{folder / name}  {len(content):,} bytes" for name, content in files.items())


def main() -> None:
    """Defines the flags and runs the command."""
    out = flags.DEFINE_string("out", None, "Folder for the files.", required=True)
    run_with_trained(lambda from_run, seed: export_run(from_run, out.value, seed))
