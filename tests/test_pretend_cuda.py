"""The pretended device computes what the CPU computes, and sees waits and mixed devices."""

import pytest
import torch
from torch import nn

from nuat.errors import InputError
from nuat.models import build_model
from nuat.runtime.cuda_graphs import use_cuda_graphs
from tests.pretend_cuda import Counts, pretended_cuda, record_graph


def test_values_and_launches():
    x = torch.rand(4, 8)
    with pretended_cuda():
        on_device = x.to("cuda")
        assert on_device.is_cuda and on_device.device.type == "cuda"
        with Counts() as counts:
            y = (on_device * 2).clamp(0, 1).view(-1)[3:]
        assert torch.equal(y.cpu(), (x * 2).clamp(0, 1).view(-1)[3:])
    assert counts.num_launches == 2 and not counts.waits and not counts.mixed


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).all()),
        lambda x: (x > 0).nonzero(),
        lambda x: torch.tensor(2.0, device=x.device),
        lambda x: x.cpu(),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.copy_(torch.zeros(4)),
        lambda x: torch.equal(x, x),
        lambda x: x.__setitem__(x.long(), 2.0),
    ],
)
def test_waits(work):
    with pretended_cuda():
        x = torch.arange(4.0).to("cuda")
        with Counts() as counts:
            work(x)
        assert counts.num_waits == 1 and "a test" in next(iter(counts.waits))
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
            record_graph(lambda: work(x))


def test_a_pinned_copy_does_not_wait_and_mixed_devices_are_seen():
    with pretended_cuda():
        pinned = torch.zeros(4).pin_memory()
        with Counts() as counts:
            x = pinned.to("cuda", non_blocking=True)
            x.copy_(pinned, non_blocking=True)
        assert not counts.waits
        with Counts() as counts:
            x + torch.zeros(4)
        assert counts.mixed.total() == 1


def test_a_recorded_graph_repeats_its_operations_on_its_tensors():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, x_2 = torch.rand(2, 5, 3, 2, 2)
    calls, out = [], []

    def gradient(x):
        calls.append(None)
        x = x.detach().requires_grad_()
        loss = model(x).log_softmax(1).square().sum() + torch.zeros((), device=x.device)
        return torch.autograd.grad(loss, x)[0]

    expected = gradient(x), gradient(x_2)
    with pretended_cuda():
        model.to("cuda")
        static, total = x.to("cuda"), torch.zeros(5, 3, 2, 2, device="cuda")

        def work():
            out.append(gradient(static))
            total.add_(out[-1])

        replay = record_graph(work)
        assert out[0].isnan().all() and not total.any()  # the recording changes nothing
        with Counts() as counts:
            replay()
        assert counts.num_launches == 1 and torch.equal(out[0].cpu(), expected[0])
        static.copy_(x_2.to("cuda"))
        replay()
        assert torch.equal(out[0].cpu(), expected[1])
        assert torch.equal(total.cpu(), expected[0] + expected[1])
    assert len(calls) == 3


def test_a_network_in_training():
    torch.manual_seed(0)
    model, x, y = (
        build_model("small-cnn(width=4)", 10, 3),
        torch.rand(8, 3, 16, 16),
        torch.arange(8),
    )
    losses = []
    for device in ("cpu", "cuda"):
        with pretended_cuda():
            moved = build_model("small-cnn(width=4)", 10, 3)
            moved.load_state_dict(model.state_dict())
            moved.to(device)
            optimizer = torch.optim.SGD(moved.parameters(), lr=0.1, momentum=0.9)
            with Counts() as counts:
                for _ in range(3):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(moved(x.to(device)), y.to(device))
                    loss.backward()
                    optimizer.step()
            assert not counts.mixed
            losses.append(loss.detach().cpu())
    assert torch.equal(*losses)


def test_graphs_are_for_the_current_device():
    with pretended_cuda():
        assert use_cuda_graphs(None, torch.device("cuda"))
        assert use_cuda_graphs(True, torch.device("cuda:0"))
        assert not use_cuda_graphs(None, torch.device("cuda:1"))
        with pytest.raises(InputError, match="set CUDA_VISIBLE_DEVICES=1 and use cuda"):
            use_cuda_graphs(True, torch.device("cuda:1"))
    assert not use_cuda_graphs(None, torch.device("cpu"))
