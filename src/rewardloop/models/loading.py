"""Model folders: found, checked before anything in them is believed, read as safetensors alone, saved whole.

A `config.json` from elsewhere may name code to run (`auto_map`, `custom_pipelines`) or switch internals
(`_attn_implementation_internal`, CVE-2026-4372), and that is no less true with trust_remote_code=False. So
the configuration is filtered by our own reading of it before transformers sees the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from rewardloop import hardware
from rewardloop.errors import ModelError
from rewardloop.files import written_whole

# transformers writes these itself; they name no code
HARMLESS = frozenset({"_name_or_path", "_from_model_config", "_commit_hash"})
NAMES_CODE = frozenset({"auto_map", "custom_pipelines", "custom_generate"})
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
CHECKED = ("config.json", "generation_config.json", "tokenizer_config.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]

Kind = Literal["causal", "encoder", "classifier"]
LOADERS: dict[Kind, Any] = {"causal": AutoModelForCausalLM, "encoder": AutoModel}


def resolve_folder(source: str | Path) -> Path:
    """The local folder of `source`: a folder that is there, or a hub id whose files are fetched (no code).

    Raises ModelError where it is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise ModelError(
            f"no model folder at {str(source)!r}; give a folder with config.json, model.safetensors and "
            "tokenizer.json, or a hub id such as owner/name"
        )
    return _from_hub(source)


def read_config(folder: Path) -> dict[str, Any]:
    """The filtered config.json of a model folder. Raises ModelError: missing, malformed or refused.

    Refused: keys that name code or begin with "_" (at any depth, also in the generation and tokenizer
    configurations), quantized weights.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; a model folder in the Hugging Face layout is expected")
    contents = {name: read_json(folder / name) for name in CHECKED}
    for name, content in contents.items():
        _refuse_keys(folder / name, content)
    config = contents["config.json"]
    if "quantization_config" in config:
        raise ModelError(f"{folder} holds quantized weights; give the float16, bfloat16 or float32 original")
    return config


def require_architecture(config: dict[str, Any], kind: Kind, folder: Path) -> None:
    """Raise ModelError unless transformers itself knows the architecture as one of this kind."""
    known = {
        "causal": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "encoder": MODEL_MAPPING_NAMES,
        "classifier": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }[kind]
    wanted = {"causal": "a causal language model", "encoder": "an encoder", "classifier": "a classifier"}[kind]
    if config.get("model_type") not in known:
        raise ModelError(
            f"{folder} has model_type {config.get('model_type')!r}, which transformers does not know as {wanted}"
        )
    names = config.get("architectures") or []
    if kind == "causal" and names and names[0] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ModelError(f"{folder} holds a {names[0]}; {wanted} is expected, such as LlamaForCausalLM")


def require_safetensors(folder: Path) -> None:
    """Raise ModelError unless the weights of `folder` are safetensors."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"{folder} holds its weights as {pickled[0]}, a format that can run code when read; only "
            "model.safetensors is loaded: convert it with the tools of its author, or take another copy"
        )
    raise ModelError(f"{folder} holds no weights; model.safetensors is expected")


def load_model(folder: Path, kind: Literal["causal", "encoder"], device: str | None = None) -> Any:
    """The model of a checked folder: float32, evaluation mode, every weight from the file.

    `device` None takes a CUDA device where there is one. Raises ModelError, also where a weight is missing
    (transformers would fill it with random numbers).
    """
    require_architecture(read_config(folder), kind, folder)
    require_safetensors(folder)
    try:
        with _quiet():
            model, info = LOADERS[kind].from_pretrained(
                folder,
                dtype=torch.float32,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"could not load {folder}: {_first_line(error)}") from error
    # an encoder saved without its unused pooling layer is whole for our purpose
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"the weights in {folder} lack {len(missing)} of the tensors that its config.json asks for, "
            f"first {missing[0]}; take the folder as its author saved it"
        )
    return model.to(device or hardware.best_device()).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checked folder. Raises ModelError."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the Rust reader raises bare Exception for a malformed file
        raise ModelError(
            f"could not read the tokenizer in {folder}: {_first_line(error)}; tokenizer.json is expected"
        ) from error


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer as a plain Hugging Face folder (safetensors), whole or not at all.

    Raises StoreError when it cannot be written.
    """
    with written_whole(Path(folder)) as temporary, _quiet():
        try:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        except SafetensorError as error:  # safetensors wraps "no space left on device" in an error of its own
            raise OSError(str(error)) from error


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"there is no folder {name!r} here, and the hub gave no model of that name "
            f"({_first_line(error)}); give a folder, or check the id and the network"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is no file. Raises ModelError where it is no object."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}; a JSON object is expected")
    return content


def _refuse_keys(path: Path, content: dict[str, Any]) -> None:
    for key in _keys(content):
        if key in NAMES_CODE or (key.startswith("_") and key not in HARMLESS):
            raise ModelError(
                f"{path} has the key {key!r}, which can make a model folder run code or change how it runs; "
                "remove the key if you trust the folder, or take a model that transformers knows by itself"
            )


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars while weights are read or written: our own commands show progress."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
