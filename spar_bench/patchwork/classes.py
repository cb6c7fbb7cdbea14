"""The classes of the scenes: names by label, each with a synonym."""

TEXTURES: list[list[str]] = [
    ["stripes", "striped cloth"],
    ["checkers", "checkerboard"],
    ["dots", "polka dots"],
    ["waves", "ripples"],
    ["bricks", "brick wall"],
    ["lattice", "wire mesh"],
    ["gravel", "pebbles"],
]
SHAPES: list[list[str]] = [
    ["disc", "circle"],
    ["square", "box"],
    ["triangle"],
    ["star"],
    ["ring", "donut"],
    ["cross", "plus sign"],
    ["heart"],
]
CLASSES = TEXTURES + SHAPES
