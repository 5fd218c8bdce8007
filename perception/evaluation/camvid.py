"""CamVid's own 32 classes and the 11 that most papers report, with their colours.

The 32 are those of the Cambridge-driving Labeled Video Database (Brostow et al. 2009), whose labels are colour PNGs;
how they become 11 is that of SegNet (Badrinarayanan et al. 2017). Colours are RGB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.common.palette import Rgb
from perception.types import U8

CAMVID_32: dict[str, Rgb] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}
"""Name and colour of the 32 classes; their ids are their places."""

CAMVID_11: dict[str, tuple[str, ...]] = {
    "sky": ("Sky",),
    "building": ("Archway", "Bridge", "Building", "Tunnel", "Wall"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
"""Name of the 11 classes and what of the 32 they are made of; their ids are their places, and Void is in none."""

VOID_11 = 11
"""Id of pixels that count for nothing among the 11."""


def ids_from_colors(labels_rgb: U8) -> U8:
    """Class ids 0..31, uint8 ``[H, W]``, of a label picture of CamVid, uint8 ``[H, W, 3]`` RGB.

    Raises:
        ValueError: a colour that no class has.
    """
    packed = labels_rgb.astype(np.int64) @ np.array([65536, 256, 1])
    known = np.array([red * 65536 + green * 256 + blue for red, green, blue in CAMVID_32.values()])
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
    ids: NDArray[np.int64] = order[place]
    wrong = known[ids] != packed
    if wrong.any():
        color = tuple(int(v) for v in labels_rgb[wrong][0])
        raise ValueError(f"no class of CamVid has the colour {color}")
    return ids.astype(np.uint8)


def to_eleven(ids: U8) -> U8:
    """The 32 ids as the 11; `VOID_11` where there is none."""
    table = np.full(len(CAMVID_32), VOID_11, np.uint8)
    names = list(CAMVID_32)
    for target, parts in enumerate(CAMVID_11.values()):
        table[[names.index(part) for part in parts]] = target
    made: U8 = table[ids]
    return made
