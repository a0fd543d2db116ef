"""Which files are copied because they lie on a network's drive."""

from pathlib import Path

import pytest
import torch

from sd_t2v.modelscope.checkpoints import drives
from sd_t2v.modelscope.checkpoints import load as loading
from sd_t2v.modelscope.checkpoints.drives import is_remote
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.tests.helpers.layouts import assert_golden_weights
from sd_t2v.tests.helpers.support import CPU, write_model_folder

MOUNTS = r"""/dev/sda1 / ext4 rw 0 0
server:/models /mnt/models nfs4 rw,vers=4.2 0 0
//nas/films /mnt/my\040films cifs rw 0 0
C:\134 /mnt/c 9p rw,aname=drvfs;path=C:\;uid=1000 0 0
drive /content/drive fuse.drive rw 0 0
/dev/sdb1 /mnt/disk fuseblk rw 0 0
/dev/sdc1 /mnt/models/local ext4 rw 0 0
"""


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="asks as Linux does")
@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("/home/x.pth", False), ("/mnt/models/x.pth", True), ("/mnt/my films/x.pth", True), ("/mnt/c/x.pth", False),
        ("/content/drive/x.pth", True), ("/mnt/disk/x.pth", False), ("/mnt/models/local/x.pth", False),
        ("/mnt/models2/x.pth", False),
    ],
)  # fmt: skip
def test_a_drive_is_known_by_what_is_mounted(
    path: str, remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(drives, "_MOUNTS", tmp_path / "mounts")
    assert is_remote(Path(path)) == remote


def test_files_on_a_network_drive_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model_folder(tmp_path / "t2v")
    monkeypatch.setattr(loading, "is_remote", lambda _: True)
    assert_golden_weights(folder)
    model = load_model(folder, CPU)
    maps = Path("/proc/self/smaps")
    assert not maps.exists() or str(folder) not in maps.read_text(encoding="utf-8")
    assert model.unet.out[2].weight.dtype == torch.float16
