"""A training by the Hugging Face Trainer as its documents write one, with `deepspeed=ds_config.json`.

It knows nothing of this project. recorded.json holds what it gave with DeepSpeed 0.19.8, transformers 5.24.0,
accelerate 1.15.0 and torch 2.13.0 on two CPU ranks:
`DS_ACCELERATOR=cpu torchrun --nproc-per-node 2 trainer.py OUT --stage N ...`, OUT/told.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY, LENGTH = 64, 16
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class Samples(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(index)
        tokens = torch.randint(0, VOCABULARY, (LENGTH,), generator=random)
        return {"input_ids": tokens, "labels": tokens}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--save", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--own-optimizer", action="store_true", help="the Trainer's, not the configuration's")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--from-pretrained", type=Path)
    parser.add_argument(
        "--by-accelerate", action="store_true", help="accelerate launch has the configuration"
    )
    parser.add_argument("--only-configuration", action="store_true")
    return parser.parse_args()


def configuration(given: argparse.Namespace) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": given.stage,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if given.offload:
        zero |= {
            name: {"device": "cpu", "pin_memory": True} for name in ("offload_optimizer", "offload_param")
        }
    rates = {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}
    params = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto", "torch_adam": True}
    own = (
        {}
        if given.own_optimizer
        else {
            "optimizer": {"type": "AdamW", "params": params},
            "scheduler": {"type": "WarmupLR", "params": rates},
        }
    )
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "fp16": {"enabled": "auto"},
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        **own,
    }


def main() -> None:
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"ds_config_{os.environ.get('RANK', '0')}.json"
    path.write_text(json.dumps(configuration(given)))
    if given.only_configuration:
        return
    settings = transformers.TrainingArguments(
        str(given.out),
        deepspeed=None if given.by_accelerate else str(path),
        use_cpu=True,
        max_steps=given.steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=given.accumulate,
        learning_rate=1e-3,
        warmup_steps=4,
        logging_steps=1,
        eval_strategy="steps" if given.save else "no",
        eval_steps=given.save or None,
        save_strategy="steps" if given.save else "no",
        save_steps=given.save or 500,
        load_best_model_at_end=bool(given.save),
        report_to=[],
        disable_tqdm=True,
        seed=7,
    )
    transformers.set_seed(3)
    if given.from_pretrained:
        model = transformers.AutoModelForCausalLM.from_pretrained(given.from_pretrained)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
    if given.lora:
        import peft

        targets = ["q_proj", "v_proj"]
        model = peft.get_peft_model(
            model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets)
        )
    trainer = transformers.Trainer(
        model=model, args=settings, train_dataset=Samples(), eval_dataset=Samples()
    )
    trainer.train(resume_from_checkpoint=True if given.resume else None)
    last = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(given.out / "final"))
    if trainer.args.process_index == 0:
        told = [one for one in trainer.state.log_history if "loss" in one]
        rows = [[one["step"], one["loss"], one.get("grad_norm"), one["learning_rate"]] for one in told]
        (given.out / "told.json").write_text(json.dumps({"steps": rows, "evaluated": last}))


if __name__ == "__main__":
    main()
