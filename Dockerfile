FROM python:3.14-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/causeway \
 && /opt/causeway/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /opt/causeway/bin/pip install --no-cache-dir --no-deps .

FROM python:3.14-slim
RUN useradd --system --create-home --uid 10001 causeway
COPY --from=build /opt/causeway /opt/causeway
ENV PATH=/opt/causeway/bin:$PATH \
    CAUSEWAY_HOST=0.0.0.0 \
    CAUSEWAY_LOG_FORMAT=json \
    PYTHONUNBUFFERED=1
WORKDIR /home/causeway
USER causeway
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["causeway", "run", "glisk"]
