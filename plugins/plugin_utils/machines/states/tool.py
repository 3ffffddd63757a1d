# SPDX-License-Identifier: Apache-2.0
"""Terraform or OpenTofu as a program that is asked: with a limit of time, and its failures as one sentence."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import StateFault

NAMES = ("tofu", "terraform")
_SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|PASSPHRASE|CREDENTIALS?$|_KEY$|TF_ENCRYPTION", re.IGNORECASE)
_REMEDIES = (
    (
        r"(?i)error acquiring the state lock|state (is )?locked",
        "Another run holds the state. Wait until it has ended; if there is none: `{tool} force-unlock ID`.",
    ),
    (
        # OpenTofu says of a damaged state as well that it could not be looked at "for presence of encryption".
        r"(?i)(?<!presence of )encrypt|decrypt",
        "The state is encrypted: give the encryption's configuration in the root or the environment (TF_ENCRYPTION), to OpenTofu >= 1.7.",
    ),
    (
        r"(?i)state snapshot was created by|unsupported state format version|newer (version|terraform)",
        "A newer tool wrote the state: use that or a newer one (`binary`).",
    ),
    (
        r"(?i)unsupported state file format|could not be parsed as json|state file.*(corrupt|invalid)|snapshot integrity|failed to read state",
        "The state is damaged. Restore it: from terraform.tfstate.backup, or an earlier version that the backend keeps.",
    ),
    (
        r"(?i)initialization required|(tofu|terraform) init\b|module not installed|inconsistent dependency lock|failed to load plugin schemas",
        "The root is not initialised here. Run `{init}`, and again what you ran.",
    ),
    (
        r"(?i)credential|unauthori[sz]ed|invalid auth|authentication|access ?denied|forbidden|\b40[13]\b",
        "Give credentials, by the environment or the tool's usual files.",
    ),
)


def find_tool(binary: str | None, environment: Mapping[str, str]) -> str:
    """The path of the program.

    :param binary: what the source says; without it, ASHLAR_TOFU, else the first of the usual names.
    :raises StateFault: there is none.
    """
    wanted = binary or environment.get("ASHLAR_TOFU")
    if wanted:
        found = shutil.which(os.path.expanduser(wanted), path=environment.get("PATH"))
        if not found:
            source = "binary" if binary else "ASHLAR_TOFU"
            raise StateFault(f"needs the tool that {source} names, {wanted}, which is not there or can't be run. Install it, or correct {source}.")
        return os.path.abspath(found)
    for name in NAMES:
        found = shutil.which(name, path=environment.get("PATH"))
        if found:
            return found
    raise StateFault("needs OpenTofu or Terraform, and neither tofu nor terraform is on PATH. Install one, or name it with `binary` or ASHLAR_TOFU.")


class Tool:
    """One program in one folder. python-terraform makes the command lines; running them is done here, since it knows no limit of time,
    logs what programs print, and reads state files on the way.

    ``shown`` is how a person would call it.
    """

    def __init__(self, binary: str, folder: Path, environment: Mapping[str, str], timeout_seconds: int, secrets: tuple[str, ...] = ()) -> None:
        self.binary, self.folder, self.timeout_seconds = binary, folder, timeout_seconds
        self.shown = Path(binary).name
        self._environment = {
            **{name: value for name, value in environment.items() if not name.startswith("TF_LOG") and not _names_nothing(name, value)},
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }
        values = [*secrets, *(value for name, value in environment.items() if _SECRET_NAME.search(name))]
        self._secrets = tuple(sorted((value for value in values if len(value) >= 6), key=len, reverse=True))

    def run(self, command: str, *arguments: str, workspace: str | None = None, **options: Any) -> bytes:
        """What the program printed.

        :param options: as python-terraform wants them; True for a flag.
        :raises StateFault: it failed, or took too long.
        """
        line = self._line(command, arguments, options)
        environment = {**self._environment, **({"TF_WORKSPACE": workspace} if workspace else {})}
        try:
            process = subprocess.Popen(
                line,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise StateFault(f"needs {self.binary}, which can't be run: {error.strerror}. Install the tool, or name another with `binary`.") from None
        try:
            output, errors = process.communicate(timeout=self.timeout_seconds)
        except subprocess.TimeoutExpired:
            self._kill(process)
            raise StateFault(
                f"was asked for by `{self.shown} {command}`, which had not ended after {self.timeout_seconds} s and was stopped. "
                "Look whether the backend can be reached, or raise timeout_seconds."
            ) from None
        except BaseException:
            self._kill(process)
            raise
        if process.returncode:
            raise StateFault(self._failed(command, process.returncode, errors or output))
        return output

    def _line(self, command: str, arguments: tuple[str, ...], options: Mapping[str, Any]) -> list[str]:
        try:
            driver: Any = importlib.import_module("python_terraform")
        except ImportError:
            raise StateFault("needs the Python package python-terraform. Install it: `pip install -r requirements.txt`.") from None

        class Lines(driver.Terraform):  # type: ignore[misc]
            def read_state_file(self, file_path: str | None = None) -> None:
                """Not wanted: the tool itself reads the state, and a damaged one must not end here."""

        made = Lines(working_dir=str(self.folder), terraform_bin_path=self.binary)
        flags = {name: driver.IsFlagged if value is True else value for name, value in options.items()}
        line: list[str] = made.generate_cmd_string(command, *arguments, **flags)
        return line

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        # The whole group: the tool starts its providers as programs of their own, which hold the pipes open.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()

    def _failed(self, command: str, code: int, errors: bytes) -> str:
        said = self.last_words(errors)
        remedy = next((words for pattern, words in _REMEDIES if re.search(pattern, said)), "Correct that, and run again.")
        init = f"{self.shown} -chdir={_relative(self.folder)} init"
        end = f"exit code {code}" if code > 0 else f"signal {-code}"
        return f"can't be read: `{self.shown} {command}` ended with {end} and said: {said or 'nothing.'} {remedy.format(tool=self.shown, init=init)}"

    def last_words(self, errors: bytes) -> str:
        """What the program printed last, on one line, without frames, colours and secrets."""
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[\u2500-\u257f]", "", errors.decode("utf-8", "replace"))
        start = text.find("Error:")
        words = " ".join(text[max(start, 0) :].split())
        for secret in self._secrets:
            words = words.replace(secret, "***")
        words = re.sub(r"://[^/@\s]+@", "://***@", words)
        words = words if len(words) <= 500 else f"{words[:500].rsplit(' ', 1)[0]} ..."
        return words if not words or words.endswith((".", "!", "?", "...")) else f"{words}."


def _names_nothing(name: str, value: str) -> bool:
    """A settings file that isn't there: the tool goes on without it, but says so amid the JSON that is asked of it."""
    return name == "TF_CLI_CONFIG_FILE" and not os.path.exists(value)


def _relative(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("../../..") else relative
