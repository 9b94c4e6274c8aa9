"""Model folders: what is loaded, what is refused and how it is said, what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardloop.errors import ModelError, StoreError
from rewardloop.models.language_model import freeze_copy, load_language_model, save_language_model
from tiny_models import FAMILIES, save_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: v for key, v in (content | changes).items() if v is not None}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_saved_as_a_folder_that_plain_transformers_loads(tmp_path: Path, family: str) -> None:
    lm = load_language_model(save_tiny(tmp_path / "model", family), device="cpu")
    save_language_model(lm, tmp_path / "again")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    ids = torch.tensor([lm.encode_prompt("the cat")])
    assert torch.equal(plain(ids).logits, lm.model(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "again")("the cat")["input_ids"] == ids[0].tolist()
    assert {path.suffix for path in (tmp_path / "again").iterdir()} <= {".safetensors", ".json", ".jinja"}


def test_half_precision_files_become_float32_in_evaluation_mode(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    lm = load_language_model(folder, device="cpu")
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.float32}
    assert not lm.model.training


def test_a_frozen_copy_shares_nothing_and_learns_nothing(folder: Path) -> None:
    lm = load_language_model(folder, device="cpu")
    reference = freeze_copy(lm)
    assert not any(parameter.requires_grad for parameter in reference.model.parameters())
    assert all(parameter.requires_grad for parameter in lm.model.parameters())
    before = reference.model.lm_head.weight.clone()
    with torch.no_grad():
        lm.model.lm_head.weight.add_(1.0)
    assert torch.equal(reference.model.lm_head.weight, before)


@pytest.mark.parametrize("source", ["/no/such/folder", "no such", "../up"])
def test_an_unknown_folder_is_one_line(source: str) -> None:
    with pytest.raises(ModelError, match="no model folder at") as caught:
        load_language_model(source)
    assert "\n" not in str(caught.value)
    assert source in str(caught.value)


def test_an_unknown_hub_id_is_one_line() -> None:
    with pytest.raises(ModelError, match="no folder 'no-such-owner/no-such-model' here, and the hub gave") as caught:
        load_language_model("no-such-owner/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_folder_without_config_weights_or_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="could not read the tokenizer"):
        load_language_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_language_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_language_model(folder)


def test_pickled_weights_are_refused_unread(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a format that can run code"):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}),
        ("config.json", {"custom_pipelines": {"x": {}}}),
        ("config.json", {"_attn_implementation": "owner/kernel"}),
        ("config.json", {"_attn_implementation_internal": "owner/kernel"}),
        ("config.json", {"rope_parameters": {"_secret": 1}}),
        ("generation_config.json", {"custom_generate": "owner/code"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
    ],
)
def test_a_configuration_that_can_run_code_is_refused(folder: Path, file: str, change: dict[str, object]) -> None:
    edit_json(folder / file, **change)
    with pytest.raises(ModelError, match=r"has the key '[a-z_]+', which can make a model folder run code"):
        load_language_model(folder)


def test_keys_that_transformers_writes_itself_are_no_harm(folder: Path) -> None:
    edit_json(folder / "config.json", _name_or_path="somewhere")
    edit_json(folder / "generation_config.json", _from_model_config=True)
    load_language_model(folder, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "evil"}, "does not know as a causal language model"),
        ({"model_type": None}, "does not know as a causal language model"),
        ({"model_type": "vit", "architectures": None}, "does not know as a causal language model"),
        ({"architectures": ["EvilForCausalLM"]}, "holds a EvilForCausalLM"),
        ({"quantization_config": {"quant_method": "x"}}, "quantized weights"),
        ({"num_hidden_layers": 3}, "lack 9 of the tensors"),
        ({"hidden_size": 64}, "could not load"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    edit_json(folder / "config.json", **change)
    with pytest.raises(ModelError, match=message):
        load_language_model(folder)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_configuration_that_is_no_json_object_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=r"config\.json"):
        load_language_model(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="could not load"):
        load_language_model(folder)


def test_a_missing_tensor_is_never_filled_with_random_numbers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"first model\.norm\.weight"):
        load_language_model(folder)


def test_no_end_token_anywhere_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", eos_token_id=None)
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    edit_json(folder / "generation_config.json", eos_token_id=None)
    with pytest.raises(ModelError, match="no end token is named"):
        load_language_model(folder)


def test_every_named_end_token_ends_and_the_generation_configuration_names_the_usual_one(folder: Path) -> None:
    edit_json(folder / "generation_config.json", eos_token_id=[7, 1])
    assert load_language_model(folder, device="cpu").end_ids == (7, 1)


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    edit_json(folder / "config.json", vocab_size=100)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="do not belong together"):
        load_language_model(folder)


def test_a_full_disk_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_language_model(folder, device="cpu")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(lm.tokenizer), "save_pretrained", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        save_language_model(lm, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_saved_policy_replaces_the_one_before(folder: Path) -> None:
    lm = load_language_model(folder, device="cpu")
    with torch.no_grad():
        lm.model.model.norm.weight.add_(1.0)
    save_language_model(lm, folder)
    again = load_language_model(folder, device="cpu")
    assert torch.equal(again.model.model.norm.weight, lm.model.model.norm.weight)
