"""A worker follows what Redis wants loaded: with a real Redis, a real engine thread and the golden model."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager

import pytest

from shared import keys, wire
from shared.errors import ModelNotFound, ModelUnavailable
from shared.fleet import WorkerInfo, WorkerState
from tests.cases import INTERNVL2
from tests.worker.models.golden import golden_model
from worker.adapters import Adapters
from worker.engine.engine import Engine
from worker.engine.thread import EngineThread
from worker.heartbeat import Heartbeat
from worker.models.fake import FakeModel
from worker.models.family import LoadError
from worker.settings import WorkerSettings

MODEL = "internvl2-2b"
ONE, ALL = str(INTERNVL2 / "adapter"), str(INTERNVL2 / "adapter_all")


@asynccontextmanager
async def adapters_of(redis, model=None, worker_id="w"):
    """One worker's adapters, with its heartbeat and engine."""
    model = golden_model() if model is None else model
    info = WorkerInfo(
        id=worker_id, host="h", pid=1, version="0", device="cpu", model=MODEL, model_type=MODEL, state=WorkerState.READY
    )
    engine = EngineThread(Engine(model.runner, 8), on_step=lambda outputs: None)
    engine.start()
    adapters = Adapters(redis, Heartbeat(redis, info), model, engine)
    try:
        yield adapters
    finally:
        await redis.delete(keys.adapters(MODEL))
        await redis.hset(keys.adapters(MODEL), keys.ADAPTERS_KNOWN, "")
        await adapters.reconcile()
        engine.stop()


async def want(redis, **paths):
    await redis.delete(keys.adapters(MODEL))
    await redis.hset(keys.adapters(MODEL), mapping={keys.ADAPTERS_KNOWN: "", **paths})


async def said(redis, worker_id="w"):
    return wire.decode_worker(await redis.get(keys.worker(worker_id)))


def slots_in_use():
    return {slot for layer in golden_model().runner.adapters._layers.values() for slot in layer._filled}


async def test_own_adapters_are_loaded_and_every_worker_of_the_model_is_told(redis):
    async with adapters_of(redis) as adapters:
        await adapters.open({"one": ONE, "all": ALL})

        assert (await said(redis)).adapters == ("one", "all")
        assert await redis.hgetall(keys.adapters(MODEL)) == {b"one": ONE.encode(), b"all": ALL.encode(), b"": b""}
        assert slots_in_use() == {1, 2}


async def test_worker_that_starts_later_loads_what_the_model_is_to_have(redis):
    await want(redis, one=ONE)
    async with adapters_of(redis) as adapters:
        await adapters.open({})

        assert (await said(redis)).adapters == ("one",)


async def test_poke_brings_every_change(redis):
    async with adapters_of(redis) as adapters:
        listening = asyncio.create_task(adapters.run())
        await want(redis, one=ONE)
        await redis.publish(keys.reconcile(MODEL), "")
        await until_said(redis, ("one",))
        await want(redis, all=ALL)
        await redis.publish(keys.reconcile(MODEL), "")
        await until_said(redis, ("all",))
        listening.cancel()


async def until_said(redis, names, timeout_s=10):
    async with asyncio.timeout(timeout_s):
        while await redis.get(keys.worker("w")) is None or (await said(redis)).adapters != names:
            await asyncio.sleep(0.01)


async def test_redis_that_lost_everything_is_told_again(redis):
    async with adapters_of(redis) as adapters:
        await adapters.open({"one": ONE})
        await redis.flushall()

        await adapters.reconcile()

        assert await redis.hget(keys.adapters(MODEL), "one") == ONE.encode()
        assert (await said(redis)).adapters == ("one",)


async def test_unloaded_adapter_stays_for_the_jobs_that_hold_it_and_no_longer(redis):
    async with adapters_of(redis) as adapters:
        await adapters.open({"one": ONE})
        first, second = await adapters.hold("one"), await adapters.hold("one")
        await want(redis)
        await adapters.reconcile()

        assert (await said(redis)).adapters == ()
        with pytest.raises(ModelNotFound, match="unloaded"):
            await adapters.hold("one")
        adapters.release(first)
        await asyncio.wrap_future(adapters._engine.between_steps(lambda: None))
        assert slots_in_use() == {1}
        adapters.release(second)
        await asyncio.wrap_future(adapters._engine.between_steps(lambda: None))
        assert slots_in_use() == set()


async def test_name_that_comes_back_from_elsewhere_has_a_slot_of_its_own(redis):
    async with adapters_of(redis) as adapters:
        await adapters.open({"one": ONE})
        old = await adapters.hold("one")
        await want(redis, one=ALL)
        await adapters.reconcile()
        new = await adapters.hold("one")

        assert (old.path, new.path) == (ONE, ALL)
        assert slots_in_use() == {old.slot, new.slot} == {1, 2}
        adapters.release(old)
        adapters.release(new)


async def test_job_that_comes_before_the_poke_is_answered(redis):
    async with adapters_of(redis) as adapters:
        await adapters.open({})
        await want(redis, one=ONE)

        held = await adapters.hold("one")

        assert held.name == "one"
        adapters.release(held)


async def test_base_holds_nothing(redis):
    async with adapters_of(redis) as adapters:
        assert await adapters.hold(None) is None
        adapters.release(None)


async def test_wanted_adapter_that_cannot_be_loaded_is_reported_and_costs_the_others_nothing(redis, tmp_path):
    await want(redis, bad=str(tmp_path), one=ONE)
    async with adapters_of(redis) as adapters:
        await adapters.open({})

        assert (await said(redis)).adapters == ("one",)
        assert "not a LoRA directory" in (await said(redis)).refused_adapters["bad"]
        with pytest.raises(ModelUnavailable, match="bad"):
            await adapters.hold("bad")
        await want(redis, one=ONE)
        await adapters.reconcile()
        assert (await said(redis)).refused_adapters == {}


@pytest.mark.parametrize(
    ("own", "message"), [({"bad": "/nowhere"}, "not a LoRA directory"), ({MODEL: ONE}, "name of its base model")]
)
async def test_own_adapter_that_cannot_be_served_ends_the_worker(redis, own, message):
    async with adapters_of(redis) as adapters:
        with pytest.raises(LoadError, match=message):
            await adapters.open(own)

        assert not await redis.exists(keys.adapters(MODEL))


async def test_model_that_takes_no_adapters_says_so(redis):
    async with adapters_of(redis, FakeModel(WorkerSettings(model_type="fake"))) as adapters:
        with pytest.raises(LoadError, match="takes no adapters"):
            await adapters.open({"one": ONE})


@pytest.mark.parametrize(
    "config",
    ['{"lora_alpha": "thirty-two"}', '{"lora_alpha": 1e999}', '{"lora_alpha": 1, "peft_type": ["LORA"]}', "[]", ""],
)
async def test_directory_that_is_not_what_it_claims_to_be_costs_the_worker_nothing(redis, tmp_path, config):
    broken = shutil.copytree(ONE, tmp_path / "tuned")
    (broken / "adapter_config.json").write_text(config)
    (broken / "adapter_model.safetensors.index.json").write_text(config)
    await want(redis, broken=str(broken), one=ONE)
    async with adapters_of(redis) as adapters:
        await adapters.open({})

        assert (await said(redis)).adapters == ("one",)
        assert str(broken) in (await said(redis)).refused_adapters["broken"]


async def test_memory_that_does_not_suffice_is_a_refusal(redis, monkeypatch):
    def fail(slot, changes):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(golden_model().runner.adapters, "put", fail)
    await want(redis, one=ONE)
    async with adapters_of(redis) as adapters:
        await adapters.open({})

        assert (await said(redis)).refused_adapters == {"one": "out of memory"}


async def test_system_text_of_the_training_is_the_adapters_own(redis, tmp_path):
    tuned = shutil.copytree(ONE, tmp_path / "tuned")
    arguments = json.loads((tuned / "sft_args.json").read_text("utf-8"))
    (tuned / "sft_args.json").write_text(json.dumps(arguments | {"system": "You are a pirate."}))
    async with adapters_of(redis) as adapters:
        await adapters.open({"pirate": str(tuned)})

        held = await adapters.hold("pirate")

        assert held.system == "You are a pirate."
        adapters.release(held)
