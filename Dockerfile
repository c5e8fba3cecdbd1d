# An image that runs `panda serve`; docs/server.md says how it is used.
#
#   docker build -t panda .                            for a CPU
#   docker build -t panda --build-arg TORCH=cu130 .    for NVIDIA GPUs
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}
ARG EXTRAS=serve
ENV PIP_CONSTRAINT=constraints.txt \
    PIP_BUILD_CONSTRAINT=constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/panda

# The version with the label of its build, as 2.13.0+cpu, is in PyTorch's own index only: no step can
# take PyPI's build, which needs gigabytes of CUDA packages.
COPY constraints.txt ./
RUN version="$(sed -n 's/^torch==//p' constraints.txt)+$TORCH" \
    && pip --python /opt/panda/bin/python install --no-deps --index-url "$TORCH_INDEX" "torch==$version"

COPY . .
RUN pip --python /opt/panda/bin/python install ".[$EXTRAS]" \
    && pip --python /opt/panda/bin/python check

# Without a GPU, its libraries are 120 MB of nothing, and a CUDA package is a mistake above.
RUN if [ "$TORCH" = cpu ]; then \
        find /opt/panda -regex '.*/libbitsandbytes_\(cuda\|rocm\|xpu\)[^/]*' -delete \
        && ! pip --python /opt/panda/bin/python freeze | grep -i -E '^(nvidia|cuda|triton)'; \
    fi

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/panda panda
COPY --from=build /opt/panda /opt/panda
ENV PATH=/opt/panda/bin:$PATH \
    HF_HOME=/var/lib/panda/huggingface \
    PANDA_HOME=/var/lib/panda/models
USER 10001
WORKDIR /var/lib/panda
VOLUME /var/lib/panda
EXPOSE 7263
# http.client, as urllib would ask a proxy that the environment names
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 7263, timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
# exits with 2 unless PANDA_API_KEY is set
ENTRYPOINT ["panda"]
CMD ["serve", "--host", "0.0.0.0", "--media-dir", "/media"]
