"""Stands in for bcrypt among the modules of Ceph's manager, where it can be loaded only once (PyO3 knows no subinterpreters). They import it and do
not use it: https://github.com/PyO3/pyo3/issues/576."""


def __getattr__(name: str) -> None:
    raise AttributeError(f"bcrypt.{name} can't be had in Ceph's manager")
