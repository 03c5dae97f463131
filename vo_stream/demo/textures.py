"""Grey textures of the demo worlds, painted from noise and rectangles.

All of them repeat without a seam, so whatever is painted keeps clear of the borders or wraps.
"""

from __future__ import annotations

import cv2
import numpy as np

from vo_stream.demo.brushes import BLACK, WHITE, Picture, clutter, crack, letters, noise
from vo_stream.demo.ripmap import Texture


def asphalt(rng: np.random.Generator) -> Texture:
    """Return asphalt: grit, worn patches, cracks, spots. Meant for about 14 m a repeat."""
    size = 2048
    picture = 92 + 11 * noise(rng, (size, size), 1.1)
    picture += 13 * noise(rng, (size, size), 0.5, 2.0, tiles=2)
    picture += 24 * np.maximum(noise(rng, (size, size), 0.0, 6.0, tiles=2) - 1.8, 0.0)
    for _ in range(26):  # mended patches
        x, y = rng.integers(20, size - 420, 2)
        w, h = rng.integers(40, 400, 2)
        patch = picture[y : y + h, x : x + w]
        patch += rng.uniform(-26, 16)
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), 48.0, 3)
    for _ in range(60):
        crack(rng, picture, rng.uniform(35, 60))
    for _ in range(500):  # stones, gum, spots of oil
        x, y = rng.integers(12, size - 12, 2)
        cv2.circle(picture, (int(x), int(y)), int(rng.integers(1, 8)), rng.uniform(30, 170), -1)
    return Texture(picture)


def slabs(rng: np.random.Generator) -> Texture:
    """Return a pavement of 8 x 8 slabs. Meant for about 4.8 m a repeat."""
    size, cell = 1024, 128
    picture = 140 + 7 * noise(rng, (size, size), 1.0) + 8 * noise(rng, (size, size), 0.4, 2.0)
    tone = rng.normal(0, 13, (8, 8)).astype(np.float32)
    picture += np.kron(tone, np.ones((cell, cell), dtype=np.float32))
    for k in range(0, size, cell):
        picture[k : k + 4] -= 55
        picture[:, k : k + 4] -= 55
    for _ in range(120):
        x, y = rng.integers(10, size - 10, 2)
        cv2.circle(picture, (int(x), int(y)), int(rng.integers(1, 7)), rng.uniform(60, 200), -1)
    for _ in range(10):
        crack(rng, picture, 75)
    return Texture(picture)


def facade(rng: np.random.Generator) -> Texture:
    """Return four storeys of four windows each. Meant for 12 m a repeat; v runs upwards."""
    size, bay = 1024, 256
    base = rng.uniform(95, 185)
    picture = base + 8 * noise(rng, (size, size), 1.3, tiles=2)
    picture += 6 * noise(rng, (size, size), 0.4, 2.0, tiles=4)
    if rng.random() < 0.6:
        _bricks(rng, picture)
    window_w, window_h = int(rng.integers(84, 150)), int(rng.integers(110, 160))
    bars = int(rng.integers(1, 4))
    frame = rng.choice([base + 60, base - 70, WHITE, 40.0])
    for row, column in np.ndindex(4, 4):
        x = column * bay + (bay - window_w) // 2
        y = row * bay + (bay - window_h) // 2
        _window(rng, picture, (x, y, window_w, window_h), float(frame), bars)
    for row in range(4):  # a ledge above each storey
        y = row * bay
        picture[y + 4 : y + 14] = base + rng.uniform(15, 45)
        picture[y + 14 : y + 18] -= 45
    for _ in range(30):  # stains run down from sills
        x, y = int(rng.integers(10, size - 20)), int(rng.integers(10, size - 150))
        w, h = int(rng.integers(3, 10)), int(rng.integers(30, 140))
        picture[y : y + h, x : x + w] -= np.linspace(22, 2, h, dtype=np.float32)[:, None]
    return Texture(picture[::-1])


def shopfront(rng: np.random.Generator) -> Texture:
    """Return a ground floor: doors, shop windows, signs. Meant for 12 x 3.5 m; v runs upwards."""
    width, height = 1024, 256
    base = rng.uniform(60, 150)
    picture = base + 8 * noise(rng, (width, height), 1.0) + 6 * noise(rng, (width, height), 0.4)
    x = 14
    while x < width - 120:
        w = int(rng.integers(80, min(300, width - 14 - x)))
        if w < 120:  # a door
            picture[90:250, x : x + w - 20] = rng.uniform(25, 90)
            cv2.rectangle(picture, (x, 90), (x + w - 20, 250), rng.uniform(120, 220), 4)
            cv2.circle(picture, (x + 12, 175), 4, WHITE, -1)
        else:
            _window(rng, picture, (x, 80, w - 20, 140), rng.uniform(30, 230), 1)
            goods = picture[150:215, x + 8 : x + w - 28]
            clutter(rng, goods, 14)
        letters(rng, picture, (x, 18, w - 20, 46))
        x += w
    return Texture(picture[::-1])


def poster(rng: np.random.Generator) -> Texture:
    """Return a poster or a picture: blocks, lines of writing, a frame."""
    size = 256
    picture = rng.uniform(120, 230) + 14 * noise(rng, (size, size), 1.4)
    clutter(rng, picture, 18)
    for y in range(30, 220, int(rng.integers(28, 60))):
        letters(rng, picture, (24, y, int(rng.integers(90, 200)), int(rng.integers(12, 24))))
    cv2.rectangle(picture, (4, 4), (size - 5, size - 5), rng.choice([20.0, 235.0]), 12)
    return Texture(picture)


def leaves(rng: np.random.Generator) -> Texture:
    """Return foliage."""
    size = 512
    picture = 78 + 20 * noise(rng, (size, size), 0.9)
    for _ in range(2600):
        x, y = rng.uniform(0, size, 2)
        axes = int(rng.integers(3, 11)), int(rng.integers(2, 5))
        tone = float(np.clip(rng.normal(80, 38), 10, 190))
        centre = round(x), round(y)
        cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, tone, -1)
    return Texture(picture)


def car_side(rng: np.random.Generator) -> Texture:
    """Return the side of a car's body with its wheels; v runs upwards."""
    width, height = 512, 128
    picture = _paint(rng, (width, height))
    picture[104:] = 25
    for x in (96, 410):
        cv2.circle(picture, (x, 90), 46, BLACK, -1)
        cv2.circle(picture, (x, 92), 36, 45.0, -1)
        cv2.circle(picture, (x, 92), 22, 165.0, -1)
        for angle in np.arange(5) * 2 * np.pi / 5:
            spoke = round(x + 20 * np.cos(angle)), round(92 + 20 * np.sin(angle))
            cv2.line(picture, (x, 92), spoke, 60.0, 4)
    for x in (160, 255, 345):
        cv2.line(picture, (x, 6), (x, 100), 30.0, 2)
    for x in (225, 320):
        cv2.rectangle(picture, (x, 28), (x + 22, 33), 25.0, -1)
    cv2.rectangle(picture, (2, 20), (26, 40), 225.0, -1)
    cv2.rectangle(picture, (484, 20), (509, 44), 60.0, -1)
    return Texture(picture[::-1])


def car_end(rng: np.random.Generator) -> Texture:
    """Return the front or the back of a car: lamps, number plate, bumper; v runs upwards."""
    size = 128
    picture = _paint(rng, (size, size))
    picture[100:] = 30
    for x in (6, 92):
        cv2.rectangle(picture, (x, 22), (x + 28, 46), rng.uniform(60, 240), -1)
    cv2.rectangle(picture, (40, 64), (88, 80), 235.0, -1)
    letters(rng, picture, (43, 67, 42, 10))
    cv2.line(picture, (4, 56), (124, 56), 40.0, 2)
    return Texture(picture[::-1])


def car_glass(rng: np.random.Generator) -> Texture:
    """Return the windows around a car's cabin."""
    width, height = 256, 64
    picture = 45 + 14 * noise(rng, (width, height), 1.2)
    for x in (0, 118, 246):
        picture[:, x : x + 10] = 150
    picture[:7] = picture[-7:] = 150
    for x in rng.integers(20, 230, 6):
        cv2.line(picture, (int(x), 54), (int(x) + 12, 12), rng.uniform(70, 170), 3)
    return Texture(picture)


def plaster(rng: np.random.Generator, base: float, marks: int = 160) -> Texture:
    """Return a wall or ceiling: faint blotches and scratches. Meant for about 3 m a repeat."""
    size = 1024
    picture = base + 7 * noise(rng, (size, size), 1.2) + 4 * noise(rng, (size, size), 0.4, 2.5)
    for _ in range(marks):
        x, y = rng.integers(16, size - 16, 2)
        tone = base + rng.normal(0, 32)
        if rng.random() < 0.5:
            cv2.circle(picture, (int(x), int(y)), int(rng.integers(1, 9)), tone, -1)
        else:
            dx, dy = rng.integers(-14, 15, 2)
            cv2.line(picture, (int(x), int(y)), (int(x + dx), int(y + dy)), tone, 2)
    for _ in range(6):
        crack(rng, picture, base - 45)
    return Texture(picture)


def wallpaper(rng: np.random.Generator, base: float) -> Texture:
    """Return stripes and small ornaments on a wall. Meant for about 2 m a repeat."""
    size = 1024
    picture = base + 8 * noise(rng, (size, size), 1.0)
    for x in range(0, size, 128):
        picture[:, x + 20 : x + 52] -= rng.uniform(14, 30)
        for y in range(0, size, 128):
            tone = base + rng.normal(0, 40)
            cv2.ellipse(picture, (x + 92, y + 64), (14, 26), rng.uniform(0, 180), 0, 360, tone, -1)
            cv2.circle(picture, (x + 36, y + 20), int(rng.integers(4, 11)), tone - 20, -1)
    return Texture(picture)


def planks(rng: np.random.Generator, base: float) -> Texture:
    """Return boards of wood with grain and joints. Meant for about 2 m a repeat."""
    size, cell = 1024, 128
    picture = base + 6 * noise(rng, (size, size), 0.6, 2.0)
    grain = noise(rng, (size, size), 0.8)
    picture += 14 * cv2.resize(grain[:, : size // 8], (size, size), interpolation=cv2.INTER_CUBIC)
    for y in range(0, size, cell):
        picture[y : y + cell] += rng.normal(0, 15)
        picture[y : y + 4] -= 60
        for x in rng.integers(8, size - 8, 2):
            picture[y : y + cell, x : x + 4] -= 55
            knot = (int(x + size // 3) % (size - 40) + 20, y + 60)
            cv2.ellipse(picture, knot, (14, 8), 0, 0, 360, base - 50, -1)
    return Texture(picture)


def books(rng: np.random.Generator) -> Texture:
    """Return a shelf with two rows of books; v runs upwards."""
    width, height = 1024, 512
    picture = 40 + 5 * noise(rng, (width, height), 0.5)
    for top in (0, 256):
        x = 8
        while x < width - 50:
            w, h = int(rng.integers(14, 48)), int(rng.integers(150, 225))
            y = top + 246 - h
            picture[y : top + 246, x : x + w] = rng.uniform(30, 225) + rng.normal(0, 4, (h, w))
            cv2.rectangle(picture, (x, y), (x + w, top + 246), BLACK, 1)
            for k in rng.integers(10, h - 30, 3):
                letters(rng, picture, (x + 3, y + int(k), w - 6, 9))
            x += w + int(rng.choice([0, 1, 1, 24]))
        picture[top + 246 : top + 256] = 165
    return Texture(picture[::-1])


def carton(rng: np.random.Generator) -> Texture:
    """Return a box with tape, labels and print."""
    size = 256
    picture = rng.uniform(70, 190) + 9 * noise(rng, (size, size), 0.8)
    picture[110:140] += 30
    clutter(rng, picture, 9)
    for _ in range(5):
        x, y = rng.integers(10, 150, 2)
        letters(rng, picture, (int(x), int(y), int(rng.integers(40, 95)), int(rng.integers(9, 26))))
    cv2.rectangle(picture, (1, 1), (size - 2, size - 2), rng.uniform(20, 60), 3)
    return Texture(picture)


def clouds(rng: np.random.Generator) -> Texture:
    """Return a bright sky with clouds."""
    size = 1024
    cloud = noise(rng, (size, size), 1.7)
    return Texture(188 + 26 * np.tanh(1.3 * cloud) + 3 * noise(rng, (size, size), 0.8, 3.0))


def paint_mark(rng: np.random.Generator) -> Texture:
    """Return worn white road paint."""
    size = 256
    worn = noise(rng, (size, size), 0.8)
    return Texture(205 + 9 * worn - 70 * (worn > 1.3) + 5 * noise(rng, (size, size), 0.0))


def concrete(rng: np.random.Generator, base: float) -> Texture:
    """Return a plain rough surface: kerbs, poles, roofs."""
    size = 512
    picture = base + 10 * noise(rng, (size, size), 0.9) + 7 * noise(rng, (size, size), 0.2, 2.0)
    for x in range(0, size, 128):
        picture[:, x : x + 3] -= 40
    return Texture(picture)


def manhole(rng: np.random.Generator) -> Texture:
    """Return a manhole cover in its square of asphalt."""
    size = 256
    picture = 80 + 10 * noise(rng, (size, size), 0.5, 2.0)
    centre = (size // 2, size // 2)
    cv2.circle(picture, centre, 116, 40.0, -1)
    cv2.circle(picture, centre, 104, 95.0, -1)
    for x, y in np.ndindex(9, 9):
        if (x - 4) ** 2 + (y - 4) ** 2 < 18:
            cv2.rectangle(picture, (20 + 24 * x, 20 + 24 * y), (32 + 24 * x, 32 + 24 * y), 45.0, -1)
    return Texture(picture)


def _paint(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    shine = np.linspace(18, -25, size[1], dtype=np.float32)[:, None]
    picture: Picture = rng.uniform(40, 215) + shine + 4 * noise(rng, size, 1.0)
    return picture


def _bricks(rng: np.random.Generator, picture: Picture) -> None:
    height, width = picture.shape
    for row, y in enumerate(range(0, height, 16)):
        tones = np.repeat(rng.normal(0, 13, width // 32), 32).astype(np.float32)
        picture[y : y + 16] += np.roll(tones, 16 * (row % 2))
        picture[y : y + 2] += 26
        picture[y : y + 16, 16 * (row % 2) :: 32] += 26


def _window(
    rng: np.random.Generator,
    picture: Picture,
    box: tuple[int, int, int, int],
    frame: float,
    bars: int,
) -> None:
    x, y, w, h = box
    glass = picture[y : y + h, x : x + w]
    glass[:] = rng.uniform(25, 75) + np.linspace(35, 0, h, dtype=np.float32)[:, None]
    if rng.random() < 0.5:  # curtains
        part = int(w * rng.uniform(0.15, 0.4))
        tone = rng.uniform(110, 210)
        folds = 18 * np.sin(np.arange(part, dtype=np.float32) / 3)
        glass[:, :part] = tone + folds
        glass[:, w - part :] = tone + folds
    if rng.random() < 0.3:  # a blind, partly down
        glass[: int(h * rng.uniform(0.2, 0.7))] = rng.uniform(120, 220)
    for _ in range(3):  # what the glass reflects
        start = int(rng.integers(0, w))
        cv2.line(glass, (start, h), (start + int(rng.integers(10, 60)), 0), rng.uniform(60, 130), 4)
    for k in range(1, bars + 1):
        cv2.line(picture, (x + k * w // (bars + 1), y), (x + k * w // (bars + 1), y + h), frame, 5)
    cv2.line(picture, (x, y + h // 3), (x + w, y + h // 3), frame, 4)
    cv2.rectangle(picture, (x, y), (x + w, y + h), frame, 7)
    cv2.rectangle(picture, (x - 8, y + h), (x + w + 8, y + h + 9), min(frame + 30, WHITE), -1)
    cv2.line(picture, (x - 8, y + h + 12), (x + w + 8, y + h + 12), 30.0, 4)
