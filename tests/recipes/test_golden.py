"""lam, learning rate and momentum at the epochs that the published code is known at."""

import dataclasses

import pytest

import nuat
from nuat.methods import AWP

A = pytest.approx


def row(name, data="cifar10"):
    return nuat.get_recipe(name, data)


def values(schedule, *epochs):
    return [schedule(epoch) for epoch in epochs]


def test_nuat_resnet18():
    r = row("nuat")
    assert (r.epochs, r.batch_size, r.weight_decay, r.ema_decay) == (100, 64, 5e-4, None)
    assert values(r.method.lam, 0, 1, 45, 90, 99) == A([0, 0.05, 2.25, 4.5, 4.5])
    assert r.lr(0) == 0
    assert values(r.lr, 20, 40, 60, 80, 85) == A([0.05, 0.1, 0.06, 0.02, 0.02])
    assert values(r.lr, 85.99, 86, 90.99, 91, 99) == A([0.02, 2e-3, 2e-3, 2e-4, 2e-4])
    assert values(r.momentum, 0, 40, 80, 99) == A([0.9, 0.8, 0.88, 0.88])


def test_nuat_wa_resnet18():
    r = row("nuat-wa")
    assert (r.epochs, r.batch_size, r.ema_decay) == (100, 64, 0.9998)
    assert values(r.method.lam, 0, 1, 50, 99) == A([0, 0.04, 2.0, 3.96])
    assert values(r.lr, 0, 12.5, 25, 62.5, 100) == A([0, 0.05, 0.1, 0.05, 0])
    assert values(r.momentum, 0, 25, 100) == A([0.9, 0.8, 0.9])


def test_nuat2_wide():
    r = row("nuat2-wrn")
    assert (r.epochs, r.batch_size, r.ema_decay, r.method.attack_ema_decay) == (55, 64, None, None)
    assert values(r.method.lam, 0, 1, 54) == A([0, 4 / 55, 4 * 54 / 55])
    assert values(r.lr, 0, 20, 35, 40.9) == A([0, 0.1, 0.025, 0.025])
    assert values(r.lr, 41, 45.9, 46, 54) == A([2.5e-3, 2.5e-3, 2.5e-4, 2.5e-4])
    assert values(r.momentum, 0, 20, 35, 54) == A([0.9, 0.8, 0.875, 0.875])


def test_nuat2_wa_wide():
    r = row("nuat2-wa-wrn")
    assert (r.epochs, r.batch_size, r.ema_decay, r.method.attack_ema_decay) == (
        80,
        64,
        0.9998,
        0.99,
    )
    assert values(r.method.lam, 0, 1, 79) == A([0, 0.05, 3.95])
    assert values(r.lr, 0, 20, 50, 80) == A([0, 0.1, 0.05, 0])
    assert values(r.momentum, 0, 20, 80) == A([0.9, 0.8, 0.9])


def test_gat():
    r = row("gat")
    assert (r.epochs, r.batch_size, r.weight_decay) == (100, 64, 5e-4)
    assert values(r.method.lam, 0, 85, 86, 99) == A([10, 10, 40, 40])
    assert values(r.lr, 0, 70.9, 71, 85.9, 86) == A([0.1, 0.1, 0.01, 0.01, 1e-3])
    assert values(r.momentum, 0, 99) == [0.9, 0.9]
    m = row("gat", "mnist")
    assert values(m.method.lam, 0, 25, 26, 49) == A([15, 15, 45, 45])
    assert values(m.lr, 0, 25.9, 26, 49) == A([0.01, 0.01, 0.002, 0.002])
    assert (m.method.alternate, m.method.start.fraction, m.epochs) == (False, 1.0, 50)
    i = row("gat", "imagenet100")
    assert values(i.method.lam, 0, 89, 90) == A([20, 20, 140])
    assert values(i.lr, 0, 60, 90) == A([0.1, 0.01, 1e-3])
    assert (i.epochs, i.weight_decay) == (120, 1e-4)


def test_fbf():
    r = row("fbf")
    assert (r.epochs, r.batch_size, r.on_overfitting) == (30, 128, "stop")
    assert values(r.lr, 0, 7.5, 15, 30) == A([0, 0.1, 0.2, 0])
    assert values(r.momentum, 0, 15, 30) == A([0.9, 0.8, 0.9])
    attack = r.method.inner
    assert (attack.steps, attack.rel_step_size(0), attack.train_mode) == (1, 1.25, True)


def test_trades():
    r = row("trades")
    assert (r.epochs, r.batch_size, r.weight_decay, r.method.ball.eps) == (76, 128, 2e-4, 0.031)
    assert r.method.ball.eps * r.method.rel_step_size == A(0.007)
    assert values(r.lr, 0, 73.9, 74, 75) == A([0.1, 0.1, 0.01, 0.01])
    assert (r.method.steps, r.method.beta(0), r.method.start.std) == (10, 6, 0.001)
    wide = row("trades-wrn")
    assert values(wide.lr, 99.9, 100, 105) == A([0.1, 0.01, 1e-3])
    assert (wide.weight_decay, wide.epochs, wide.method.ball) == (5e-4, 110, nuat.Linf(8 / 255))


def test_awp():
    r = row("awp")
    assert isinstance(r.method, AWP)
    assert (r.epochs, r.batch_size, r.weight_decay) == (200, 128, 5e-4)
    assert values(r.method.gamma, 0, 8, 9, 199) == [0, 0, 0.005, 0.005]
    assert values(r.lr, 0, 98.9, 99, 149) == A([0.1, 0.1, 0.01, 1e-3])
    attack = r.method.base
    assert (attack.ball.eps * attack.rel_step_size, attack.steps) == (A(2 / 255), 10)
    assert row("awp-wrn").method.gamma(10) == 0.005


def test_pgd_at():
    r = row("pgd-at")
    assert (r.epochs, r.batch_size, r.weight_decay) == (200, 128, 5e-4)
    assert (r.augment.pad, r.augment.pad_mode) == (4, "reflect")
    # published: (epoch + (batch + 1) / batches) / epochs decides the learning rate of a batch
    batches = -(-49_000 // r.batch_size)
    for epoch in (98, 99, 100, 149, 150):
        for batch in range(batches):
            progress = (epoch + (batch + 1) / batches) / 200
            published = 0.1 if progress < 0.5 else 0.01 if progress < 0.75 else 1e-3
            assert r.lr(epoch + batch / batches) == A(published), (epoch, batch)
    assert (r.method.inner.steps, r.method.inner.rel_step_size(0)) == (10, 0.25)


def test_free():
    r = row("atf")
    assert (r.method.replays, r.method.rel_step_size, r.batch_size, r.weight_decay) == (
        8,
        1.0,
        128,
        2e-4,
    )
    assert r.epochs * 391 * r.method.replays == A(80_000, rel=0.02)
    assert values(r.lr, 12.9, 13, 19.5) == A([0.1, 0.01, 1e-3])


def test_the_epoch_is_selected_as_published():
    """CIFAR-10 by 7 steps of eps/7, MNIST by 40 of eps/40, ImageNet-100 by PGD-20."""
    clean = nuat.NoStart()
    for data, steps, size, start in (
        ("digits", 7, 1 / 7, clean),
        ("cifar10", 7, 1 / 7, clean),
        ("mnist", 40, 1 / 40, clean),
        ("imagenet100", 20, 1 / 8, nuat.Uniform()),
    ):
        for name in ("nuat", "gat", "normal"):
            attack = row(name, data).parsed_validation_attack()
            assert attack == nuat.PGD(
                row(name, data).ball, steps=steps, rel_step_size=size, start=start
            )
    assert row("gat", "imagenet100").ball.eps / 8 == A(1 / 255)


def test_rows_by_published_code_of_others_say_what_they_do_otherwise():
    for name in ("fbf", "pgd-at", "trades", "awp", "atf"):
        recipe = row(name)
        assert recipe.source == "published code"
        for difference in ("49,000 images", "selects the epoch on 1,000", "ResNet-18 for"):
            assert difference in recipe.note, name
    for name in ("fbf", "pgd-at"):
        assert "no input normalization" in row(name).note
    assert "fp32 for fp16" in row("fbf").note and "overfitting" in row("fbf").note
    for name in ("trades-wrn", "awp-wrn"):
        assert "49,000 images" in row(name).note


def test_the_rows_of_the_talk():
    """They are NuAT's rows, but for the attack."""
    for data in ("digits", "mnist", "cifar10"):
        for name in ("nuat", "nuat-wa"):
            code, talk = row(name, data), row(f"{name}-slides", data)
            method = talk.method
            assert (method.alternate, method.reference, method.double_bn_update) == (
                False,
                "eval",
                False,
            )
            assert not method.start.clamp and method.start.fraction == code.method.start.fraction
            same = dataclasses.replace(
                method,
                start=code.method.start,
                alternate=True,
                double_bn_update=True,
                reference="train",
            )
            assert same == code.method
            assert (
                dataclasses.replace(
                    talk, name=name, method=same, source=code.source, note=code.note
                )
                == code
            )
