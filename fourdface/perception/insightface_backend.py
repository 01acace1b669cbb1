"""insightface's detector (SCRFD or RetinaFace .onnx) before the embedded networks: finds small and turned faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fourdface.errors import FourdError
from fourdface.perception.hybrid import HybridPerception

INPUT_SIZE = (640, 640)
SCORE = 0.5


class InsightFacePerception(HybridPerception):
    """Loads `detector_file` (for example det_10g.onnx of buffalo_l) with the installed insightface package."""

    name = "insightface"

    def __init__(self, detector_file: Path) -> None:
        super().__init__()
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise FourdError(
                "Perception backend insightface needs the package insightface: pip install insightface."
            ) from error
        if not Path(detector_file).exists():
            raise FourdError(
                f"There is no insightface detector at {detector_file}: put det_10g.onnx of its buffalo_l pack there."
            )
        try:
            model = get_model(str(detector_file), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime and protobuf raise their own classes
            raise FourdError(f"insightface cannot open {detector_file}: {str(error).splitlines()[0]}") from error
        if model is None or not hasattr(model, "detect"):
            raise FourdError(f"{detector_file} is not a face detector: use det_10g.onnx or det_500m.onnx.")
        model.prepare(ctx_id=-1, input_size=INPUT_SIZE, det_thresh=SCORE)
        self._model = model

    def _boxes(self, image_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        boxes, _ = self._model.detect(np.ascontiguousarray(image_u8[..., ::-1]))  # insightface wants BGR
        return np.asarray(boxes, dtype=np.float32).reshape(-1, 5)
