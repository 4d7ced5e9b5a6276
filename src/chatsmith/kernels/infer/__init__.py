"""The kernels of generation: a whole pass through a decoder in one call, without torch.

`build` finds or makes the library for this processor, `matrix` lays weights out as it reads them, and `session` runs.
"""
