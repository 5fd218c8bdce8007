"""Show a camera in a window, without a browser: always the newest frame; Esc or q quits.

python demos/webcam.py                  # camera 0; also 1, rtsp://..., street.mp4
python demos/webcam.py synthetic:?frames=30 --headless       # no window: prints the speed
"""

import sys
import time

import cv2

import perception

TITLE = "perception: Esc quits"
uri = next((argument for argument in sys.argv[1:] if not argument.startswith("--")), "0")
window = "--headless" not in sys.argv

frames, started = 0, time.perf_counter()
with perception.open_source(uri) as source, perception.load_model("street-open") as model:
    annotate = perception.Annotator(model.card, fps=True)
    for prediction in perception.predict(source, model):
        picture = annotate(prediction)  # YUV planes where the source gives those, else BGR
        frames += 1
        if not window:
            continue
        cv2.imshow(TITLE, perception.to_bgr(picture))
        if cv2.waitKey(1) & 0xFF in (27, ord("q")) or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            break
    dropped = source.dropped
if window:
    cv2.destroyAllWindows()
print(f"{frames} frames, {frames / (time.perf_counter() - started):.1f} fps, {dropped} dropped")
