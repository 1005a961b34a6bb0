"""How the command line starts: what it leaves for later."""

import subprocess
import sys


def test_help_loads_nothing_that_takes_long() -> None:
    code = (
        "import sys; from temper.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert not end.code, end.code\n"
        "slow = {'pydantic', 'yaml', 'numpy', 'pyarrow', 'pandas', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {slow}' if slow else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
