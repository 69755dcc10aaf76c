"""The simulated engine: a stand-in for vLLM that says so, installed as /usr/bin/vllm in the lab's images.

It imports nothing outside itself and the standard library, because it runs inside a 30 MB image.
"""
