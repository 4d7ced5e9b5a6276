"""Training in parallel: a model is divided from outside by an ordered list of small functions.

    tensor → context → pipeline → activation checkpointing → compile → sharding        (`divide`)

The model code knows of none of them. One process is the control: every layout gives its losses and its weights.
"""
