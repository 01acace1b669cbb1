"""Run MediaPipe's face landmarker over a folder of pictures; needs only mediapipe and numpy.

    python scripts/open_head/detect.py FOLDER face_landmarker_v2_with_blendshapes.task

Writes FOLDER/landmarks.json: file name -> [478][3] in pixels (z in the same scale), absent where no face was found.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: Path, model: Path) -> None:
    """Detect in every PNG of the folder."""
    import mediapipe as mp

    options = mp.tasks.vision.FaceLandmarkerOptions(base_options=mp.tasks.BaseOptions(model_asset_path=str(model)))
    found = {}
    with mp.tasks.vision.FaceLandmarker.create_from_options(options) as landmarker:
        for path in sorted(folder.glob("*.png")):
            image = mp.Image.create_from_file(str(path))
            result = landmarker.detect(image)
            if result.face_landmarks:
                found[path.name] = [
                    [p.x * image.width, p.y * image.height, p.z * image.width] for p in result.face_landmarks[0]
                ]
    (folder / "landmarks.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
