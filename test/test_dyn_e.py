# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""Dyn-E: the embedding, the decoding of actions, runs and resumption."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ndp_ros import checkpoint
from ndp_ros.errors import CheckpointError, TaskError, TrainingError
from ndp_ros.policies.array_policy import ArrayPolicy
from ndp_ros.tasks.actions.embedding import Decoder, EmbeddedActions, VectorEmbeddedActions, selu
from ndp_ros.tasks.throw import Throw
from ndp_ros.tasks.vector import vectorise
from ndp_ros.training.baselines.dyn_e import EMBEDDING, embedded
from ndp_ros.training.baselines.embedding import (
    Embedding,
    divergence,
    learn_embedding,
    save_decoder,
    selu_net,
    whitened,
)
from ndp_ros.training.config import DynEConfig, PpoConfig, RunConfig, Td3Config, make_spec
from ndp_ros.training.evaluate import require_fit, task_choice
from ndp_ros.training.evaluation import make_actor, run_episode
from ndp_ros.training.experiments import shipped
from ndp_ros.training.logs import TIME_COLUMNS, read_progress
from ndp_ros.training.run import train

TOY = "toy_task:Toy-v0"
SMALL = DynEConfig(
    random_steps=160,
    embedding_hidden=16,
    embedding_steps=30,
    decoder_steps=30,
    embedding_batch=16,
)


def toy(**changes: object) -> RunConfig:
    values = {
        "task": TOY,
        "method": "dyn-e",
        "samples": 640,
        "hidden": (16, 16),
        "preset": "",
        "environments": 4,
        "workers": 1,
        "checkpoint_every": 1,
        "evaluation_episodes": 2,
        "ppo": PpoConfig(batch_size=160),
        "td3": Td3Config(collect=80, warm_up=160, replay_batch=16, critic_hidden=(16,)),
        "dyne": SMALL,
    }
    return RunConfig(**{**values, **changes})


def random_decoder(k: int = 5, dof: int = 7, size: int = 3, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "bound": np.full((k, dof), 2.0),
        "largest": np.array([1.5]),
        "0.weight": rng.normal(size=(8, size)),
        "0.bias": rng.normal(size=8),
        "1.weight": rng.normal(size=(k * dof, 8)),
        "1.bias": rng.normal(size=k * dof),
    }


# The embedding.


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    mean, log_variance = torch.tensor([[0.3, -1.0]]), torch.tensor([[-0.5, 0.8]])
    p = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    q = torch.distributions.Normal(torch.zeros(1, 2), torch.ones(1, 2))
    expected = torch.distributions.kl_divergence(p, q).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_selu_is_torchs() -> None:
    x = np.linspace(-4, 4, 33)
    np.testing.assert_allclose(selu(x), torch.selu(torch.from_numpy(x)).numpy(), atol=1e-12)


def test_gradients_reach_the_encoder_through_the_predicted_change() -> None:
    torch.manual_seed(0)
    net = Embedding(3, 4, 2, 8).double()
    obs, actions, change = (torch.randn(5, n, dtype=torch.float64) for n in (3, 4, 3))

    def loss(shift: torch.Tensor) -> torch.Tensor:
        return net.loss(obs, actions + shift, change, 0.1, torch.Generator().manual_seed(0))[0]

    assert torch.autograd.gradcheck(
        loss, (torch.zeros(4, dtype=torch.float64, requires_grad=True),)
    )
    loss(torch.zeros(4, dtype=torch.float64)).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.encoder.parameters())


def test_sequences_with_the_same_outcome_get_neighbouring_embeddings() -> None:
    """Only the sum of an action's two steps moves the state: the other direction is lost."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2000, 2))
    actions = rng.uniform(-1, 1, (2000, 2, 1))
    next_obs = obs + np.array([1.0, 0.0]) * actions.sum(axis=1)
    config = DynEConfig(
        embedding_hidden=32,
        embedding_steps=600,
        decoder_steps=600,
        embedding_rate=3e-3,
        embedding_size=1,
        motion_cost=1e-5,
    )
    tensors = learn_embedding(obs, actions, next_obs, np.ones((2, 1)), config, 0)
    decoder = Decoder(tensors)
    sums = [decoder(np.array([[e]])).sum() for e in np.linspace(-0.7, 0.7, 15)]
    steps = np.diff(sums)
    assert (steps > 0).all() or (steps < 0).all()  # one dimension orders the outcomes
    assert abs(sums[-1] - sums[0]) > 1.0


def test_whitening_leaves_constants_at_zero() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(whitened(values), [[-1.0, 0.0], [1.0, 0.0]])


def test_an_embedding_depends_only_on_its_seed() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 3)), rng.uniform(-1, 1, (64, 2, 2)), rng.normal(size=(64, 3))
    learnt = [learn_embedding(*data, np.ones((2, 2)), SMALL, seed) for seed in (3, 3, 4)]
    for name, tensor in learnt[0].items():
        np.testing.assert_array_equal(tensor, learnt[1][name])
    assert not np.array_equal(learnt[0]["0.weight"], learnt[2]["0.weight"])


# Acting through it.


def test_the_saved_decoder_equals_the_trained_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = selu_net(3, 8, 8, 10)
    tensors = {"bound": np.full((5, 2), 2.0), "largest": np.array([1.5])}
    for i, layer in enumerate(m for m in net if isinstance(m, torch.nn.Linear)):
        tensors |= {
            f"{i}.weight": layer.weight.detach().numpy(),
            f"{i}.bias": layer.bias.detach().numpy(),
        }
    save_decoder(tmp_path / "e.safetensors", tensors)
    action = np.array([[0.4, -2.0, 0.1]])
    inside = torch.tensor([0.4, -1.0, 0.1])
    expected = 2.0 * torch.tanh(net(1.5 * inside)).reshape(5, 2)
    decoded = Decoder.load(tmp_path / "e.safetensors")(action)
    np.testing.assert_allclose(decoded, expected.detach().numpy(), atol=1e-6)


def test_a_step_executes_the_decoded_displacements() -> None:
    decoder = Decoder(random_decoder())
    env, task = EmbeddedActions(Throw(k=5), decoder), Throw(k=5)
    np.testing.assert_array_equal(env.reset(seed=1)[0], task.reset(seed=1)[0])
    action = np.array([[0.2, -0.3, 0.9]])
    ours, theirs = env.step(action), task.step(decoder(action))
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1:4] == theirs[1:4]
    np.testing.assert_array_equal(ours[4]["rewards"], [theirs[4]["rewards"].sum()])


def test_a_vector_gives_the_bits_of_single_environments() -> None:
    decoder = Decoder(random_decoder())
    alone, joined = ([EmbeddedActions(Throw(k=5), decoder) for _ in range(2)] for _ in range(2))
    vector = vectorise(joined)
    assert isinstance(vector, VectorEmbeddedActions)
    for seed, (a, b) in enumerate(zip(alone, joined, strict=True)):
        a.reset(seed=seed), b.reset(seed=seed)
    actions = np.random.default_rng(0).normal(size=(2, 1, 3))
    for a, b in zip(
        [e.step(x) for e, x in zip(alone, actions, strict=True)],
        vector.step(actions),
        strict=True,
    ):
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1] == b[1]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: EmbeddedActions(Throw(k=4), Decoder(random_decoder())), r"\(4, 7\)"),
        (lambda: Decoder({}), "lacks"),
        (lambda: Decoder.load("nowhere.safetensors"), "nowhere"),
        (lambda: Decoder(random_decoder())(np.zeros((2, 3))), r"\(1, 3\)"),
        (lambda: EmbeddedActions(Throw(k=5), Decoder(random_decoder())).execute(0), "step"),
    ],
)
def test_inconsistent_embeddings_are_refused(make, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        make()


# Runs.


def rows(folder: Path) -> list[dict[str, str]]:
    return [
        {n: v for n, v in row.items() if n not in TIME_COLUMNS} for row in read_progress(folder)
    ]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def stop(row: dict) -> None:
        if row["samples"] == 480:
            raise KeyboardInterrupt

    train(toy(), tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(toy(), tmp_path / "cut", quiet=True, watch=stop)
    train(toy(), tmp_path / "cut", resume=True, quiet=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    a, b = (checkpoint.load(tmp_path / f / "checkpoints" / "last") for f in ("whole", "cut"))
    assert a.digest == b.digest
    files = [(tmp_path / f / EMBEDDING).read_bytes() for f in ("whole", "cut")]
    assert files[0] == files[1]
    samples = [int(row["samples"]) for row in rows(tmp_path / "whole")]
    assert samples == [240, 320, 400, 480, 560, 640]  # random motion counts: 160 of them


def test_it_learns_the_toy(tmp_path: Path) -> None:
    config = toy(
        samples=4000,
        checkpoint_every=6,
        evaluation_episodes=4,
        td3=Td3Config(
            collect=80,
            warm_up=400,
            replay_batch=64,
            critic_hidden=(64, 64),
            actor_rate=1e-3,
            steps_per_window=2.0,
        ),
        dyne=DynEConfig(
            random_steps=800,
            embedding_hidden=32,
            embedding_steps=400,
            decoder_steps=400,
            embedding_rate=2e-3,
        ),
    )
    train(config, tmp_path / "run", quiet=True)
    returns = [float(r["eval_return"]) for r in rows(tmp_path / "run") if r["eval_return"]]
    chance = [float(r["return"]) for r in rows(tmp_path / "run")[:4] if r["return"]]
    assert max(returns[-3:]) > 0.75 * max(returns[0], np.mean(chance))  # returns are negative


def test_a_checkpoint_has_the_embedding_that_it_acts_through(tmp_path: Path) -> None:
    train(toy(samples=320), tmp_path / "run", quiet=True)
    folder = (tmp_path / "run" / "checkpoints" / "last").resolve()
    moved = folder.rename(tmp_path / "elsewhere")
    saved = checkpoint.load(moved)
    env = task_choice(saved, [], moved).make()
    require_fit(saved, env)
    episode = run_episode(env, make_actor(ArrayPolicy(saved.spec, saved.tensors)), 0)
    assert math.isfinite(episode["return"]) and episode["windows"] == 4
    with pytest.raises(CheckpointError, match="dyn-e"):
        task_choice(saved, [])


@pytest.mark.parametrize("task", ["throw", "pick", "push", "soccer", "faucet-open"])
def test_shipped_experiments_fit_their_tasks(task: str) -> None:
    config = shipped(task, "dyn-e")
    assert config.dyne.random_steps < config.samples
    assert config.hidden == config.td3.critic_hidden == (400, 300)
    embedded(make_spec(config, config.choice.make()), config.dyne)


def test_a_run_that_ends_before_its_random_motion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="samples is 160, and random motion takes 160"):
        train(toy(samples=160), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
