"""Functions and classes of the main module: a script, `-m`, `-c`, standard input, and the guard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
class Thing:
    def __init__(self, value): self.value = value
def double(thing): return Thing(thing.value * 2)
if __name__ == "__main__":
    from bulkhead import Executor
    with Executor(1, spares=0) as executor:
        made = executor.submit(double, Thing(4)).result()
        assert isinstance(made, Thing) and type(made) is Thing and made.value == 8
        print("right")
"""


def run(*arguments: str, folder: Path, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=check, cwd=folder
    )


def test_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(BODY)
    assert run("script.py", folder=tmp_path).stdout == "right\n"
    assert run(str(tmp_path / "script.py"), folder=Path("/")).stdout == "right\n"


def test_a_module(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(BODY)
    assert run("-m", "script", folder=tmp_path).stdout == "right\n"


def test_a_command_and_standard_input_go_by_value(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    assert run("-c", BODY, folder=tmp_path).stdout == "right\n"
    assert run("-", folder=tmp_path, stdin=BODY).stdout == "right\n"


def test_a_package_goes_by_value(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(BODY)
    assert run("-m", "package", folder=tmp_path).stdout == "right\n"


def test_without_cloudpickle_the_error_says_what_to_do(tmp_path: Path) -> None:
    ended = run("-c", "import sys; sys.modules['cloudpickle'] = None\n" + BODY, folder=tmp_path, check=False)
    assert "defined in __main__, which workers cannot import" in ended.stderr and "pip install cloudpickle" in ended.stderr


def test_a_main_module_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from bulkhead import Executor\n"
        "def f(): return 1\n"
        "with Executor(1, spares=0) as executor:\n"
        "    print(executor.submit(f).exception())\n"
    )
    ended = run("script.py", folder=tmp_path)
    assert "if __name__ == '__main__':" in ended.stdout


def test_it_is_run_only_if_a_call_needs_it(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"open({str(tmp_path / 'runs')!r}, 'a').write('run\\n')\n"
        "if __name__ == '__main__':\n"
        "    from bulkhead import Executor\n"
        "    with Executor(2) as executor: assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))\n"
    )
    run("script.py", folder=tmp_path)
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_main_module_that_cannot_be_imported_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "if __name__ != '__main__': raise OSError('not twice')\n"
        "def f(): return 1\n"
        "from bulkhead import Executor\n"
        "with Executor(1, spares=0) as executor:\n"
        "    print(executor.submit(f).exception()); print(executor.submit(f).exception()); print(executor.submit(abs, -3).result())\n"
    )
    ended = run("script.py", folder=tmp_path)
    assert ended.stdout.count("not twice") >= 2 and ended.stdout.endswith("3\n")


def test_a_notebook_goes_by_value(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    script = f"import code\nshell = code.InteractiveConsole({{'__name__': '__main__'}})\n"
    body = script + (
        "import sys, types\n"
        "main = types.ModuleType('__main__'); sys.modules['__main__'] = main\n"
        f"exec(compile({BODY!r}, '<cell 1>', 'exec'), main.__dict__)\n"
    )
    (tmp_path / "kernel.py").write_text(body)
    assert run("kernel.py", folder=tmp_path).stdout == "right\n"


def test_a_kernel_of_jupyter(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    pytest.importorskip("cloudpickle")
    (tmp_path / "client.py").write_text(
        "import sys\nfrom jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel(kernel_name='python3')\n"
        "said = []\n"
        "def hook(message):\n"
        "    content = message['content']\n"
        "    said.append(content.get('text', '') + '\\n'.join(content.get('traceback', [])))\n"
        f"client.execute_interactive({BODY!r}, output_hook=hook, timeout=60)\n"
        "manager.shutdown_kernel(); print(''.join(said))\n"
    )
    ended = run("client.py", folder=tmp_path)
    assert "right" in ended.stdout


