"""Metrics by name, and which of them can be measured with the judges and weights that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fourdface.errors import UsageError
from fourdface.metrics import face, image, networks, sets, sync, temporal
from fourdface.metrics.base import Metric
from fourdface.metrics.judges import JudgeSet
from fourdface.metrics.picture import Picture

CROPS = ("face",)


@dataclass(frozen=True)
class Entry:
    """How to make a metric, and what it needs: judges' roles, assets, a package, every frame (second differences)."""

    make: Callable[[JudgeSet], Metric]
    roles: tuple[str, ...] = ()
    every_frame: bool = False
    assets: tuple[str, ...] = ()
    package: str = ""


def _identity(picture: Picture) -> object:
    return picture.read("identity")


def _words(judges: JudgeSet, *roles: str) -> str:
    return "; ".join(judges.words[role] for role in roles)


def _read(make: Callable[[str], Metric], *roles: str, every_frame: bool = False) -> Entry:
    needs = ("detector", *roles) if roles[0] not in ("coefficients", "motion") else roles
    return Entry(lambda judges: make(_words(judges, *roles)), needs, every_frame)


def _faced(name: str) -> Entry:
    role = face.KINDS[name].role
    return _read(partial(face.FaceMetric, name), role, *(("landmarks",) if role == "identity" else ()))


def _cropped(cls: type) -> dict[str, Entry]:
    name = cls("full").info.name
    return {
        name: Entry(lambda judges: cls("full")),
        f"{name}_face": Entry(lambda judges: cls("face"), ("detector",)),
    }


def _set(cls: Callable[..., Metric], role: str, *name: str) -> Entry:
    return Entry(
        lambda judges: cls(lambda p: p.read(role), _words(judges, role), *name), ("detector", "landmarks", role)
    )


def _pooled(picture: Picture) -> np.ndarray | None:
    """The judge's deepest features, mean over places."""
    taps = picture.read("features")
    return None if not taps else np.asarray(taps[-1][0].mean(axis=(1, 2)))


def _pooled_set(cls: Callable[..., Metric], name: str) -> Entry:
    return Entry(lambda judges: cls(_pooled, _words(judges, "features"), name), ("features",))


def _lpips(name: str, network: str, crop: str) -> dict[str, Entry]:
    roles = () if crop == "full" else ("detector",)
    assets = networks.lpips_assets(network)
    return {name: Entry(lambda judges: networks.LpipsMetric(crop, network), roles, assets=assets)}


def _inception(cls: Callable[..., Metric]) -> Entry:
    words = "asset inception-fid, 2048 pooled features"
    return Entry(lambda judges: cls(networks.inception_features, words), assets=("inception-fid",))


def _clip(against: str) -> Entry:
    return Entry(lambda judges: networks.ClipSimilarity(against), assets=("clip-vit-b32",), package="transformers")


def _sync(name: str) -> Entry:
    return Entry(lambda judges: sync.SyncMetric(name, _sync_reader(judges)), ("detector",), True, ("syncnet",))


def _sync_reader(judges: JudgeSet) -> sync.SyncReader:
    """One reader for the metrics of one evaluation."""
    if judges.sync is None:
        judges.sync = sync.SyncReader()
    return judges.sync


METRICS: dict[str, Entry] = {
    **_cropped(image.Psnr),
    **_cropped(image.Ssim),
    **_cropped(image.MsSsim),
    **_cropped(image.L1),
    **_lpips("lpips", "alex", "full"),
    **_lpips("lpips_face", "alex", "face"),
    **_lpips("lpips_h", "alex", "head"),
    **_lpips("lpips_vgg", "vgg", "full"),
    **_lpips("lpips_vgg_face", "vgg", "face"),
    **_lpips("lpips_squeeze", "squeeze", "full"),
    **_lpips("lpips_squeeze_face", "squeeze", "face"),
    "feature_distance": Entry(
        lambda judges: face.FeatureDistance(_words(judges, "features")), ("detector", "features")
    ),
    "nme": _faced("nme"),
    "akd": _faced("akd"),
    "pose": _faced("pose"),
    "id": _faced("id"),
    "i2oid": _faced("i2oid"),
    "reid_distance": _faced("reid_distance"),
    "reid_match": Entry(
        lambda judges: face.ReidMatch(_words(judges, "identity", "landmarks"), judges.reid_threshold),
        ("detector", "identity", "landmarks"),
    ),
    "csim": _faced("csim"),
    "aed": _faced("aed"),
    "expr": _faced("expr"),
    "aed_f": _faced("aed_f"),
    "motion": _faced("motion"),
    "o2oid": _set(sets.PairwiseIdentity, "identity", "o2oid"),
    "cons": _set(sets.PairwiseIdentity, "identity", "cons"),
    "clip_i": _clip("source"),
    "clip": _clip("reference"),
    "fid": _inception(sets.Fid),
    "kid": _inception(sets.Kid),
    "fd": _pooled_set(sets.Fid, "fd"),
    "kd": _pooled_set(sets.Kid, "kd"),
    "sync_distance": _sync("sync_distance"),
    "sync_confidence": _sync("sync_confidence"),
    "sync_offset": _sync("sync_offset"),
    "seconds": Entry(lambda judges: image.Seconds()),
    "memory": Entry(lambda judges: image.Memory()),
    "silhouette_iou": Entry(lambda judges: image.SilhouetteIou()),
    "depth_error": Entry(lambda judges: image.DepthError()),
    "normal_error": Entry(lambda judges: image.NormalError()),
    "flicker_pose": _read(temporal.PoseFlicker, "pose", every_frame=True),
    "flicker_landmarks": _read(temporal.LandmarkFlicker, "landmarks", every_frame=True),
    "flicker_pixels": Entry(lambda judges: temporal.PixelFlicker(), every_frame=True),
}


def build_metrics(
    names: Sequence[str], judges: JudgeSet, every: int = 1
) -> tuple[list[Callable[[], Metric]], dict[str, str]]:
    """Factories of the named metrics that can be measured, and why the others cannot (name -> reason).

    Raises UsageError for a name that does not exist.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UsageError(f"there is no metric {unknown[0]}; there are {', '.join(METRICS)}")
    made: list[Callable[[], Metric]] = []
    left_out: dict[str, str] = {}
    for name in names:
        entry = METRICS[name]
        absent = [role for role in entry.roles if not judges.has(role)]
        missing = networks.missing_assets(entry.assets, entry.package)
        if missing:
            left_out[name] = missing
        elif absent:
            left_out[name] = f"needs a network for {', '.join(absent)}: {_how(absent)}"
        elif entry.every_frame and every > 1:
            left_out[name] = f"needs every frame, and the protocol takes every {every}th (--every 1)"
        else:
            made.append(partial(entry.make, judges))
    return made, left_out


def _how(roles: Sequence[str]) -> str:
    """What to do for a judge that is not there."""
    if "motion" in roles:
        return "import the motion encoder of PD-FGC with `fourd assets import motion_model.pth`"
    return "run again with `--judges open --models DIR`, DIR holding the files of configs/eval/judges.yaml"


def set_metric(name: str, network: str) -> Metric | None:
    """A metric of whole sets without its network, for states of earlier runs; None for metrics with values a frame."""

    def nothing(picture: Picture) -> None:
        return None

    kinds: dict[str, Callable[[], Metric]] = {
        "fid": lambda: sets.Fid(nothing, network),
        "kid": lambda: sets.Kid(nothing, network),
        "fd": lambda: sets.Fid(nothing, network, "fd"),
        "kd": lambda: sets.Kid(nothing, network, "kd"),
        "o2oid": lambda: sets.PairwiseIdentity(nothing, network, "o2oid"),
        "cons": lambda: sets.PairwiseIdentity(nothing, network, "cons"),
        "sync_distance": lambda: sync.SyncMetric("sync_distance"),
        "sync_confidence": lambda: sync.SyncMetric("sync_confidence"),
        "sync_offset": lambda: sync.SyncMetric("sync_offset"),
    }
    return kinds[name]() if name in kinds else None
