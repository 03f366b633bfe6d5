# lrc-ase with PyTorch for the CPU:
#   docker build -t lrc-ase .
#   docker run --rm -v "$PWD:/data" lrc-ase train frames.extxyz -o run
FROM python:3.12-slim
COPY . /source
RUN pip install --no-cache-dir -c /source/constraints.txt torch --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir -c /source/constraints.txt /source \
    && rm -rf /source
# where compiled kernels are kept; mount a volume there to keep them between runs
ENV NUMBA_CACHE_DIR=/var/cache/lrc-ase
RUN mkdir -m 1777 /var/cache/lrc-ase
WORKDIR /data
ENTRYPOINT ["lrc-ase"]
