# lrc-ase with PyTorch for the CPU:
#   docker build -t lrc-ase .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" lrc-ase train frames.extxyz -o run
FROM python:3.11-slim
COPY . /source
# everything comes from PyPI but torch: its build for the CPU has a local version (+cpu), which pip prefers
RUN pip install --no-cache-dir -c /source/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
        torch /source \
    && rm -rf /source
# where compiled kernels are kept; mount a volume there to keep them between runs
ENV NUMBA_CACHE_DIR=/var/cache/lrc-ase
# a user without a home, by --user, needs a folder for the caches of other packages
ENV HOME=/tmp
RUN mkdir -m 1777 /var/cache/lrc-ase
WORKDIR /data
ENTRYPOINT ["lrc-ase"]
