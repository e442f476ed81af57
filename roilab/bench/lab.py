"""A real JupyterLab and a real browser, for the browser tests and for the drag benchmark.

The server keeps settings, workspaces, runtime files and IPython's history in a folder of its own, so nothing of the user's plays a part.
Playwright's sync API, which drives the browser, must not be used where an asyncio loop runs (a notebook's cell, an async test).
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .delay import delayed

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()


class BrowserMissing(RuntimeError, OSError):
    """Playwright or a Chromium is not installed; the message says what to install. An OSError too: for the command `roilab` a user's matter."""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: `url` without a slash at its end, and the token that it asks for."""

    url: str
    token: str

    def page_url(self, notebook: str) -> str:
        """Where the notebook, a path below the served folder, opens alone, without the tabs of an earlier page."""
        return f"{self.url}/lab/tree/{urllib.parse.quote(notebook)}?reset&token={self.token}"


@contextlib.contextmanager
def jupyterlab(folder: str | Path, round_trip: float = 0.0) -> Iterator[Lab]:
    """JupyterLab on a free port of the loopback, serving `folder`; it and its kernels end with the block.

    Args:
        round_trip: seconds that a message to the server and its answer take longer, together; see `delayed`.
    Raises:
        RuntimeError: the server ended, or did not answer within a minute; with the last lines it wrote.
    """
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roilab-lab-", ignore_cleanup_errors=True)))
        token = secrets.token_hex(16)
        _write_config(own / "config", Path(folder).resolve(), token)
        log = stack.enter_context(open(own / "log", "w", encoding="utf-8"))
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab"], cwd=folder, env=_environment(own), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        stack.callback(_stop, process)
        port = _wait_for_port(process, own, token)
        if round_trip:
            port = stack.enter_context(delayed(port, round_trip))
        yield Lab(f"http://127.0.0.1:{port}", token)


def _write_config(config: Path, folder: Path, token: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # if another program takes it now, the server tries the next ones
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    server = {"ip": "127.0.0.1", "port": port, "root_dir": str(folder), "open_browser": False, "allow_root": root}
    for name, traits in {
        "jupyter_server_config": {"ServerApp": server, "IdentityProvider": {"token": token}},
        "jupyter_lab_config": {"LabApp": {"open_browser": False, "expose_app_in_browser": True}},
        # Without news and updates, whose questions would cover the notebook.
        "labconfig/page_config": {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
    }.items():
        path = config / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(traits), encoding="utf-8")


def _environment(own: Path) -> dict[str, str]:
    """Ours, where what says how an outer Jupyter runs gives way to folders below `own`."""
    outer = ("JUPYTER", "JPY_", "IPYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outer) or name == "JUPYTER_PATH"}
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return kept | {name: str(own / folder) for name, folder in folders.items()}


def _wait_for_port(process: subprocess.Popen, own: Path, token: str, seconds: float = 60) -> int:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # a proxy of the environment knows no loopback
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        for path in (own / "runtime").glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # half written, or not listening yet
                port = json.loads(path.read_text(encoding="utf-8"))["port"]
                opener.open(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=5).close()
                return port
        time.sleep(0.1)
    status = process.poll()
    what = (
        f"did not answer within {seconds:g} s" if status is None else f"ended with status {status} before it answered"
    )
    lines = (own / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    raise RuntimeError("\n".join([f"JupyterLab {what}; it wrote:", *lines[-15:]]))


def _stop(process: subprocess.Popen):
    """End the server, which ends its kernels; what then still runs of either is killed."""
    import psutil  # ipykernel needs it, so it is there

    try:
        kernels = psutil.Process(process.pid).children(recursive=True)  # in groups of their own, hence not by group
    except psutil.NoSuchProcess:
        kernels = []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in psutil.wait_procs(kernels, timeout=3)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


@contextlib.contextmanager
def chromium(**launch):
    """A headless Chromium as a Playwright browser (sync API); `launch` goes to `BrowserType.launch`.

    Raises:
        BrowserMissing: no Playwright, or no Chromium.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BrowserMissing("playwright is not installed: pip install playwright") from None
    with sync_playwright() as playwright:
        paths = [*map(shutil.which, BROWSERS), playwright.chromium.executable_path]
        path = next((path for path in paths if path and Path(path).exists()), None)
        if path is None:
            raise BrowserMissing(
                f"no {', '.join(BROWSERS)} found: apt-get install chromium, or playwright install chromium"
            )
        browser = playwright.chromium.launch(**{"executable_path": path, "args": QUIET} | launch)
        try:
            yield browser
        finally:
            browser.close()


def open_notebook(page, lab: Lab, name: str, timeout: float = 60):
    """Show a notebook of the served folder and wait until its kernel is idle, at most `timeout` seconds."""
    page.goto(lab.page_url(name), wait_until="domcontentloaded")
    wait_for(page, IDLE, name, timeout, f"{name} is not open with an idle kernel")


def run_all(page, timeout: float = 60):
    """Run all cells of the open notebook and wait until they have run, at most `timeout` seconds.

    Raises:
        RuntimeError: a cell failed (with its traceback), or they took longer.
    """
    page.evaluate(RUN)
    wait_for(page, "() => window.roilabRun.over", None, timeout, "the cells are still running")
    wait_for(page, IDLE, None, timeout, "the cells have run, but the kernel is busy")
    errors, missed = page.evaluate(OUTCOME)
    if errors:
        raise RuntimeError("a cell of the notebook failed:\n" + re.sub(r"\x1b\[[0-9;]*m", "", "\n\n".join(errors)))
    if missed:
        raise RuntimeError(f"expected every cell to run, cells {missed} (counted from 0) have no execution number")


def theme(page, dark: bool):
    """Switch to "JupyterLab Dark" or "JupyterLab Light" and wait until the page has it."""
    name = f"JupyterLab {'Dark' if dark else 'Light'}"
    page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
    wait_for(
        page, "name => document.body.dataset.jpThemeName === name", name, 30, f"the page does not have the theme {name}"
    )


def kernel(page, code: str, timeout: float = 30):
    """Run Python in the open notebook's kernel, leaving no cell; the value of the last line, if an expression, comes back by way of JSON.

    Widget messages take another way to the kernel (a subshell) and may arrive later: wait for what the page shows of them first.

    Raises:
        RuntimeError: the code failed, its value is not for JSON, or there was no answer within `timeout` seconds.
    """
    *statements, last = ast.parse(code).body
    expressions = {}
    if isinstance(last, ast.Expr):
        expressions["value"] = f"__import__('json').dumps(({ast.unparse(last)}))"
    else:
        statements.append(last)
    reply = page.evaluate(EXECUTE, [ast.unparse(ast.Module(statements, [])), expressions, timeout])
    value = reply.get("user_expressions", {}).get("value", {"status": "ok"})
    for part in (reply, value):
        if part["status"] != "ok":
            raise RuntimeError(f"the kernel said {part.get('ename')}: {part.get('evalue')}\nto the code: {code}")
    return json.loads(ast.literal_eval(value["data"]["text/plain"])) if expressions else None


def wait_for(page, condition: str, argument, timeout: float, problem: str):
    """Wait until JavaScript's `condition` of `argument` holds; after `timeout` seconds, RuntimeError says `problem` and what covers the page."""
    from playwright.sync_api import TimeoutError

    try:
        page.wait_for_function(condition, arg=argument, timeout=1000 * timeout)
    except TimeoutError:
        dialogs = page.locator("dialog:visible, .jp-Dialog:visible").all_inner_texts()
        shown = f"; a dialog says {' '.join(dialogs[0].split())!r}" if dialogs else ""
        raise RuntimeError(f"{problem} after {timeout:g} s{shown}") from None


IDLE = """name => {
  const panel = window.jupyterapp?.shell?.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
  return (name === null || panel?.context?.path === name) && panel?.context?.isReady && panel.sessionContext.isReady
    && kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""

RUN = """() => {
  const run = window.roilabRun = {over: false};
  window.jupyterapp.commands.execute("notebook:run-all-cells").catch(() => 0).then(() => { run.over = true; });
}"""

OUTCOME = """() => {
  const errors = [], missed = [];
  [...window.jupyterapp.shell.currentWidget.content.model.cells].forEach((cell, number) => {
    if (cell.type !== "code" || !cell.sharedModel.getSource().trim()) return;
    const failed = cell.outputs.toJSON().filter(output => output.output_type === "error");
    errors.push(...failed.map(output => output.traceback.join("\\n") || `${output.ename}: ${output.evalue}`));
    if (cell.executionCount === null) missed.push(number);
  });
  return [errors, missed];
}"""

EXECUTE = """async ([code, user_expressions, timeout]) => {
  const {kernel} = window.jupyterapp.shell.currentWidget.sessionContext.session;
  const future = kernel.requestExecute({code, user_expressions, store_history: false, allow_stdin: false});
  const late = {status: "error", ename: "nothing", evalue: `it had no answer within ${timeout} s`};
  const waited = new Promise(give => setTimeout(() => give(late), 1000 * timeout));
  return await Promise.race([future.done.then(reply => reply.content), waited]);
}"""
