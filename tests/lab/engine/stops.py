"""How an engine stops and dies: what its port, its open streams and its log do, as recorded of vLLM 0.26.0 on a GPU.

tests/fixtures/gpu/stops/ has the recordings. Versions before 0.26 are simulated as their sources read: the port stays
open until the end, and what outlives the shutdown timeout is aborted.
"""

from __future__ import annotations

import threading
import time

from tests.lab.engine import logs
from tests.lab.engine.server import Server
from tests.lab.engine.sim import KILLED, Engine

CLOSES_AT_ONCE = (0, 26)
# One request that comes with the signal still gets its 500.
PORT_S = 0.3
LEAVE_S = 0.3
ECHO = (
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root"
)
_ROUND = (
    '  File "/opt/site/vllm/v1/engine/async_llm.py", line 660, in output_handler',
    "    outputs = await engine_core.get_output_async()",
    "    raise self._format_exception(outputs) from None",
)


def shut_down(engine: Engine, server: Server, timeout_s: int) -> None:
    """After SIGTERM: streams may end within the timeout; returns when the process may end, which may be never."""
    logs.info("launcher.py:100", "[shutdown] API server: shutdown triggered")
    mode = "drain" if timeout_s else "abort"
    logs.info("launcher.py:116", f"[shutdown] API server: stopping engine client mode={mode} timeout={timeout_s}s")
    deadline = time.monotonic() + timeout_s
    engine.draining.set()
    closes = server.tag.version >= CLOSES_AT_ONCE
    if closes:
        threading.Timer(PORT_S, server.close_port).start()
    while engine.running and time.monotonic() < deadline and not engine.died.wait(0.02):
        pass
    if engine.running and timeout_s and closes:
        logs.warning("utils.py:626", "[shutdown] Process manager: force killing remaining processes count=1")
        # No stream gets another token or an end, and the server waits for them to close.
        engine.lost.set()
        logs.uvicorn("Waiting for connections to close. (CTRL+C to force quit)")
        threading.Event().wait()
    engine.aborted.set()
    server.wait_answered(1.0)
    logs.info("core_client.py:662", "[shutdown] MPClient: complete")
    # vLLM takes this long to take its processes down; new requests meet a server that refuses them.
    time.sleep(LEAVE_S)


def interrupted_load(timeout_s: int) -> int:
    """SIGTERM while the model is loaded: the core is waited for, for the whole timeout; the exit code."""
    time.sleep(timeout_s)
    logs.fail("Traceback (most recent call last):\n" + "\n".join(_ROUND[:1]) + "\nKeyboardInterrupt: terminated")
    return 1


def die(engine: Engine, server: Server, grace_s: float, stop: threading.Event) -> None:
    """The core is gone: open streams end with an error at once, the log repeats it for each, and the exit code is 0."""
    if engine.dead != KILLED:
        logs.error("core.py:1136", f"EngineCore encountered a fatal error.\n{engine.dead}")
    if server.tag.version >= CLOSES_AT_ONCE:
        where = "core_client.py:702"
        logs.warning(where, "[shutdown] MPClient: engine core exited unexpectedly; starting cleanup")
        for stream in range(engine.running_at_death + 1):
            trace = [line for _ in range(stream + 1) for line in (*_ROUND, ECHO)]
            text = "\n".join(
                ["Error in chat completion stream generator.", "Traceback (most recent call last):", *trace]
            )
            logs.error("serving.py:830", text, process="APIServer")
        server.close_port()
    stop.wait(grace_s)
    logs.error("async_llm.py:704", f"AsyncLLM output_handler failed.\n{ECHO}", process="APIServer")
    server.wait_answered(1.0)
