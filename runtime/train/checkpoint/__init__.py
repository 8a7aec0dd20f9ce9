"""Checkpoints that prove themselves: written apart, listed with digests, committed by a rename, verified.

On disk, below the folder that a script names:

    latest                     the tag of the newest checkpoint, written last
    owner.json                 the run that saves here; another one must load first, or take another folder
    <tag>/manifest.json        every file's size and sha256; its presence is the proof of a whole checkpoint
    <tag>/.metadata            which tensor is where: JSON (format 1: torch's pickle, read as values)
    <tag>/__<rank>_0.distcp    the shards of one rank
    <tag>/rank_<rank>.pt       its random-number states
    <tag>/progress.pt          steps, schedule, loss scale, position in the data, the script's own state
    .<tag>.<session>.partial/  a checkpoint that is being written, or was when the job died
"""
