# paropt-exporter as an image. Your project is mounted at /project, or copied there by an image made FROM this one.
FROM python:3.13.7-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock ./
# The versions that are tested, without the tools that only developing needs: a constraint installs nothing by itself.
RUN sed -n 's/^\([a-zA-Z0-9._-]*==[^ ;]*\).*/\1/p' requirements.lock > constraints.txt
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN python -m venv /opt/paropt && /opt/paropt/bin/pip install --quiet ".[bcrypt]"

FROM python:3.13.7-slim-bookworm
LABEL org.opencontainers.image.title="paropt-exporter" \
      org.opencontainers.image.description="Runs a lane's stages in parallel and exports them to Prometheus" \
      org.opencontainers.image.licenses="Apache-2.0"
# The folder belongs to the user that runs, so that a volume mounted there does too: the history is written into it.
RUN groupadd --gid 10001 paropt \
 && useradd --uid 10001 --gid paropt --home-dir /tmp --no-create-home --shell /usr/sbin/nologin paropt \
 && install --directory --owner=paropt --group=paropt /project
COPY --from=build /opt/paropt /opt/paropt
# Results of cached stages go beside the history, which outlives the container. The home is not in the project, where the
# caches of tools would be among its files, and is writable for each --user, even if the rest is read-only.
ENV HOME=/tmp PATH=/opt/paropt/bin:$PATH PAROPT_CACHE_DIR=/project/.paropt/cache PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /project
USER 10001:10001
EXPOSE 10178
# Any answer means that it is alive: with TLS or a password that is a 400 or a 401.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 10178, timeout=4); c.request('GET', '/-/healthy'); raise SystemExit(c.getresponse().status >= 500)"]
ENTRYPOINT ["paropt-exporter"]
CMD ["--lane", "standard", "--no-once", "--web.listen-address", ":10178"]
