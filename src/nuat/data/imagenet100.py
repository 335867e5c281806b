"""ImageNet-100: the 100 classes of the published GAT code, from a folder of ImageNet."""

from __future__ import annotations

from nuat.data.folder import load_folder
from nuat.data.image_folder import summarize
from nuat.data.paths import DatasetSource, data_dir, locate
from nuat.data.splits import Splits
from nuat.errors import InputError

WORDNET_IDS = """
    n01484850 n01514668 n01518878 n01532829 n01592084 n01693334 n01749939 n01751748
    n01770393 n01784675 n01797886 n01824575 n01843065 n01855032 n01978287 n01981276
    n01985128 n02002556 n02009229 n02018207 n02085620 n02085782 n02092002 n02093428
    n02096585 n02097474 n02099429 n02099849 n02100735 n02107142 n02108000 n02109047
    n02111129 n02128925 n02190166 n02236044 n02256656 n02277742 n02396427 n02443484
    n02690373 n02749479 n02777292 n02783161 n02814860 n02825657 n02834397 n02837789
    n02930766 n03028079 n03047690 n03180011 n03188531 n03208938 n03218198 n03272010
    n03325584 n03344393 n03393912 n03417042 n03447447 n03530642 n03590841 n03598930
    n03720891 n03763968 n03775546 n03776460 n03837869 n03871628 n03877845 n03888257
    n03891332 n03937543 n04033901 n04069434 n04118538 n04133789 n04192698 n04209239
    n04259630 n04266014 n04317175 n04350905 n04367480 n04380533 n04392985 n04476259
    n04482393 n04560804 n04596742 n04613696 n07716358 n07753592 n09399592 n10565667
    n11939491 n12768682 n12985857 n13052670
"""
CLASSES = tuple(WORDNET_IDS.split())
IMAGENET_SOURCE = DatasetSource(
    name="imagenet",
    subfolder="train",
    description="the training and validation images of ILSVRC 2012, in one folder per class,",
    homepage="https://www.image-net.org",
)


def load_imagenet100(
    size: int = 224, bad_images: str = "error", workers: int | None = None
) -> Splits:
    """Photographs, 224x224, RGB, of 100 classes of ImageNet; the published val is the test split.

    The classes are the ones of the published code of arXiv:2011.14969, sorted by WordNet id. The
    validation images are 4 % of each class of train, drawn with seed 0 (ours; the published sizes
    are unknown). The images are in train/CLASS/ and val/CLASS/ under imagenet100/ or imagenet/;
    other classes are ignored.

    Args:
        size: width and height of the images in pixels.
        bad_images: see `load_folder`.
        workers: see `load_folder`.

    Raises:
        InputError: a folder or a class is missing, or an image cannot be read.
    """
    subset = data_dir() / "imagenet100"
    top = subset if (subset / "train").is_dir() else locate(IMAGENET_SOURCE).parent
    for split in ("train", "val"):
        missing = [name for name in CLASSES if not (top / split / name).is_dir()]
        if missing:
            raise InputError(
                f"{top / split} lacks {len(missing)} of the 100 classes: {summarize(missing)}; "
                f"lay it out as {split}/n01440764/*.JPEG"
            )
    return load_folder(
        str(top), size, val=0.04, bad_images=bad_images, workers=workers, classes=CLASSES
    )
