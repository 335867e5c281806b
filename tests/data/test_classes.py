"""Classes are matched by name: the labels of images follow the classes of the model."""

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import nuat
from nuat import InputError
from nuat.data import as_dataset, as_splits
from nuat.data.classes import match_classes
from nuat.models.class_names import record_class_names
from tests.data.test_folder import write_images

X = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 3
CLASSES = ("cat", "dog", "sea lion")


class Named(Dataset):
    """A Dataset with the attribute `classes` of torchvision's."""

    def __init__(self, classes, labels=Y):
        self.classes, self.labels = list(classes), labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return X[i], int(self.labels[i])


def images_of(kind, classes, folder):
    """The same images with the classes in this order, as data of each kind."""
    order = [CLASSES.index(name.lower().replace("_", " ")) for name in classes]
    y = torch.tensor(order).argsort()[Y]
    if kind == "archive":
        numpy.savez(folder / "a.npz", x_train=X, y_train=y, x_test=X, y_test=y, classes=classes)
        return nuat.load_dataset(f"npz:{folder}/a.npz").test
    if kind == "splits":
        data = nuat.InMemoryDataset(X, y)
        return nuat.Splits(data, data, data, tuple(classes)).test
    dataset = Named(classes, y)
    if kind == "loader":
        return DataLoader(Subset(dataset, range(12)), batch_size=5)
    if kind == "mapping":
        return as_splits({"train": dataset, "val": dataset, "test": dataset}).test
    return dataset


KINDS = ["archive", "splits", "Dataset", "loader", "mapping"]


class Oracle(nn.Module):
    """A network that knows the classes of X in the order of CLASSES."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        distances = (x.flatten(1)[:, None] - X.flatten(1)).square().sum(2)
        nearest = [distances[:, label == Y].amin(1) for label in range(3)]
        return -self.weight * torch.stack(nearest, 1)


def accuracy(images, classes=CLASSES):
    model = Oracle().eval()
    if classes:
        record_class_names(model, classes)
    result = nuat.evaluate(model, images, nuat.Linf(0.0), "fgsm")
    return result.clean_accuracy, result.notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [("Sea_Lion", "cat", "DOG"), ("dog", "sea lion", "cat")])
def test_classes_in_another_order_are_matched(kind, classes, tmp_path):
    images = images_of(kind, classes, tmp_path)
    clean, notes = accuracy(images)
    assert clean == 1
    assert any("labels are matched by name: the classes of the model are cat" in n for n in notes)
    assert accuracy(images, classes=None)[0] < 1, "nothing is known of the model's classes"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_classes_need_no_note(kind, tmp_path):
    clean, notes = accuracy(images_of(kind, CLASSES, tmp_path))
    assert clean == 1 and not any("matched" in note for note in notes)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("apple", "bus", "dog"),
            "model are cat, dog, sea lion, those of the data apple, bus, dog",
        ),
        (
            ("cat", "dog"),
            r"for 3 classes, but the data have 2: .* lion, those of the data cat, dog",
        ),
        ((*CLASSES, "emu"), r"for 3 classes, but the data have 4: .* dog, sea lion, emu"),
        (("cat", "Cat", "dog"), "sea lion, those of the data cat, Cat, dog"),
    ],
)
def test_other_classes_are_refused_with_both_lists(classes, message):
    y = Y % len(classes)
    with pytest.raises(InputError, match=message):
        accuracy(Named(classes, y))


def test_numbered_classes_are_matched_by_number_with_a_note():
    for classes, given in (("012", CLASSES), (CLASSES, "012")):
        clean, notes = accuracy(Named(given), classes=tuple(classes))
        assert clean == 1 and any("matched by number, not by name" in note for note in notes)
    assert accuracy((X, Y))[0] == 1


def test_splits_of_a_mapping_agree_by_name():
    train, test = Named(CLASSES), Named(("dog", "cat"), (Y[:6] == 0).long())
    data = as_splits({"train": train, "val": train, "test": test})
    assert data.classes == data.test.classes == CLASSES
    assert data.test.y.tolist() == [0, 1, 1, 0, 1, 1]
    batch = next(iter(data.test.batches(6)))
    assert torch.equal(batch[1], X[:6]) and torch.equal(batch[2], data.test.y)
    with pytest.raises(InputError, match=r"classes of data, train split are .*the data emu, gnu"):
        as_splits({"train": train, "test": Named(("emu", "gnu", "dog"))})
    renamed = as_splits({"train": train, "classes": ["a", "b", "c"]})
    assert renamed.classes == renamed.val.classes == ("a", "b", "c")


@pytest.mark.parametrize("classes", [3, None, {"cat": 0}, ["cat"], []])
def test_an_attribute_that_holds_no_names_is_ignored(classes):
    dataset = Named(())
    dataset.classes = classes
    assert as_dataset(dataset).classes is None


def test_a_dataset_is_matched_twice():
    images = as_dataset(Named(CLASSES))
    for order in (("dog", "cat", "sea lion"), ("sea lion", "cat", "dog")):
        images, _ = match_classes(images, order)
        expected = [order.index(CLASSES[label]) for label in Y.tolist()]
        assert images.y.tolist() == expected
        assert [y for _, _, ys in images.batches(5) for y in ys.tolist()] == expected
        assert images.batch(torch.arange(12))[1].tolist() == expected


def test_the_classes_of_a_run_travel_with_its_weights(tmp_path):
    write_images(tmp_path / "a", {"cat": 12, "dog": 12})
    write_images(tmp_path / "b", {"Dog": 6, "cat": 12})
    write_images(tmp_path / "c", {"apple": 6, "bus": 6})
    a, b, c = (nuat.load_dataset(f"folder:{tmp_path}/{name}(size=8)") for name in "abc")
    net = nuat.build_model("small-cnn(width=2)", classes=2, channels=3)
    recipe = nuat.Recipe("r", nuat.Standard(), "digits", "small-cnn", epochs=1, batch_size=8)
    run = nuat.fit(recipe, net, a, out=tmp_path / "run")
    loaded = nuat.load_model(run.path)
    assert loaded.classes == ("cat", "dog") and run.config["data"]["classes"] == ["cat", "dog"]
    for model in (net, loaded.model, nn.DataParallel(loaded.model)):
        result = nuat.evaluate(model, b.train, nuat.Linf(0.0), "fgsm")
        names = [file.parent.name for file in b.train.files]
        assert result.labels == [loaded.classes.index(name.lower()) for name in names]
        with pytest.raises(InputError, match="model are cat, dog, those of the data apple, bus"):
            nuat.evaluate(model, c.test, nuat.Linf(0.0), "fgsm")
