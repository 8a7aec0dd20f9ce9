"""Checkpoints that DeepSpeed's ZeRO-1, 2 and 3 saved, read without DeepSpeed and brought into our format.

On disk (DeepSpeed 0.19.8, runtime/engine.py), below the folder that a script named:

    latest                                               the tag of the newest checkpoint
    <tag>/mp_rank_00_model_states.pt                     model, schedule, steps, script's state (stages 1, 2)
    <tag>/zero_pp_rank_<rank>_mp_rank_00_model_states.pt  the same, of each rank (stage 3)
    <tag>/[bf16_]zero_pp_rank_<rank>_mp_rank_00_optim_states.pt  a rank's part of masters and moments, flat

Stages 1 and 2 lay the parameters of a group end to end and give each rank an equal range of that; stage 3
cuts every parameter into equal parts, the last of them padded, and each rank lays its parts end to end. These
numbers carry no names: `param_shapes` has the order. No file has a digest, but each is a zip archive with a
CRC-32 of every member, which is compared here.
"""
