"""Sizes, compute, memory, time and money, reckoned before they are spent. Nothing here imports torch.

    chatsmith.plan("gpt3-175b", tokens="300B", on="v100", tflops=28, price=1.50)

The package is also the function: `chatsmith.plan(...)` is `chatsmith.planning.plan`, and `help(chatsmith.plan)` says
what it takes.
"""
