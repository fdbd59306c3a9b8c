"""What pyproject.toml cannot say: an extension in C that the package does without where it does not compile."""

from setuptools import Extension, setup

RESAMPLE = Extension(
    "worker._resample",
    ["worker/resample.c"],
    extra_compile_args=["-O3", "-ffp-contract=off"],  # the weights are to be Pillow's to the last bit
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[RESAMPLE],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # one wheel for every Python from 3.11 on
)
