"""How much text that is burned into pixels is found, and how often some is where none was put:
python -m benchmarks.accuracy.burned_in [--data FOLDER] [--images N] [--chinese FONT]

Some of SLAKE's images, drawn by lot, are read as they are, and once more with a name, a date of
birth or a number written somewhere over them, white or grey, as high as the height says (of 1,000
of the image's longer side). Found: a box covers at least half of what was written. A clean image in
which text is found is told by its folder: SLAKE's X-rays have "PORTABLE" on them. With a font that
has them (Debian: fonts-droid-fallback), what is written is Chinese instead. Needs [burned-in].
"""

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter

from PIL import Image, ImageDraw, ImageFont

from benchmarks import needs
from gateway.intake.burned_in import Box, text_in

TEXTS = (
    "GARCIA LOPEZ, MARIA",
    "Smith^John",
    "Müller, Karl-Heinz",
    "Patient: J. Doe  M 56Y",
    "DOB 12.03.1956",
    "ID 4711932",
    "LI WEI 1980-02-11",
)
CHINESE = ("王芳", "李伟", "欧阳建国", "姓名：张秀英", "患者 陈静 女 56岁", "住院号 4711932")
HEIGHTS = (20, 25, 30, 40, 50)  # of a font, of 1,000 of the longer side
GREYS = (255, 255, 200, 140)


def written(
    image: Image.Image, height: int, lot: random.Random, chinese: str | None
) -> tuple[Image.Image, Box]:
    """A copy with a text on it, of that font if it is `chinese`, and where that is."""
    image, size = image.copy(), height * max(image.size) / 1000
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(chinese, size) if chinese else ImageFont.load_default(size)
    text, grey = lot.choice(CHINESE if chinese else TEXTS), lot.choice(GREYS)
    _, _, width, tall = draw.textbbox((0, 0), text, font=font)
    left = lot.uniform(0, max(0, image.width - width))
    top = lot.uniform(0, max(0, image.height - tall))
    draw.text((left, top), text, font=font, fill=(grey, grey, grey))
    return image, tuple(map(int, draw.textbbox((left, top), text, font=font)))  # type: ignore[return-value]


def covers(box: Box, text: Box) -> bool:
    wide = min(box[2], text[2]) - max(box[0], text[0])
    high = min(box[3], text[3]) - max(box[1], text[1])
    return wide > 0 and high > 0 and 2 * wide * high >= (text[2] - text[0]) * (text[3] - text[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    needs.data_folder(parser)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--chinese", metavar="FONT", help="the file of a font with such letters")
    arguments = parser.parse_args()
    paths = sorted(arguments.data.glob("slake/imgs/*/source.jpg"))
    if len(paths) < arguments.images:
        raise SystemExit(f"{arguments.data}/slake/imgs holds {len(paths)} images; see --images.")
    lot, found, put, alarms = random.Random(0), Counter[int](), Counter[int](), []
    began, began_cpu = time.perf_counter(), time.process_time()
    for number, path in enumerate(lot.sample(paths, arguments.images)):
        image = Image.open(path).convert("RGB")
        if text_in(image):
            alarms.append(path.parent.name)
        height = HEIGHTS[number % len(HEIGHTS)]
        with_text, where = written(image, height, lot, arguments.chinese)
        put[height] += 1
        found[height] += any(covers(box, where) for box in text_in(with_text))
        print(f"{number + 1}: {found.total()} found, {len(alarms)} alarms", file=sys.stderr)
    told = {
        "images": arguments.images,
        "found": {height: f"{found[height]}/{put[height]}" for height in HEIGHTS},
        "found of all": sum(found.values()) / arguments.images,
        "clean images with text": alarms,
        "seconds of a core for one": (time.process_time() - began_cpu) / 2 / arguments.images,
        "seconds": time.perf_counter() - began,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    with needs.told():
        main()
