"""OCR, anomaly detection, health and documentation on the real graph."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageDraw, ImageFont

from tests.integration.conftest import RunningServer


def picture(text: str) -> bytes:
    image = Image.new("RGB", (900, 120), "white")
    ImageDraw.Draw(image).text((20, 30), text, "black", ImageFont.load_default(44))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_ocr_in_both_shapes(server: RunningServer) -> None:
    encoded = base64.b64encode(picture("The quick brown fox 42")).decode()
    document = {"type": "image_url", "image_url": f"data:image/png;base64,{encoded}"}
    reply = server.client.post("/v1/ocr", json={"model": "pp-ocrv6", "document": document})
    assert reply.status_code == 200, reply.text
    [page] = reply.json()["pages"]
    assert "quick brown fox 42" in page["markdown"]
    assert page["dimensions"]["width"] == 900
    for x, y in page["lines"][0]["polygon"]:
        assert 0 <= x <= 900
        assert 0 <= y <= 120
    images = server.client.post("/v1/ocr", json={"images": [encoded], "return_boxes": True}).json()
    assert "quick brown fox 42" in images["data"][0]["text"]
    assert images["data"][0]["boxes"]


def test_what_is_no_image_is_refused_and_the_next_image_is_read(server: RunningServer) -> None:
    for content in (b"<svg/>", b"\x89PNG\r\n\x1a\nbroken", b"GIF89a", b"%PDF-1.7"):
        body = {"images": [base64.b64encode(content).decode()]}
        reply = server.client.post("/v1/ocr", json=body)
        assert reply.status_code == 400, reply.text
        assert set(reply.json()) == {"error"}
    encoded = base64.b64encode(picture("still here")).decode()
    assert server.client.post("/v1/ocr", json={"images": [encoded]}).status_code == 200


def test_a_detectors_life(server: RunningServer) -> None:
    rows = [{"t": 20 + (i % 10) / 10, "p": 3 + (i % 7) / 20} for i in range(200)]
    fit = server.client.post("/v1/anomaly/fit", json={"model": "life", "data": rows})
    assert fit.status_code == 200, fit.text
    assert fit.json()["encoder"]["features"]
    body = {"model": "life", "data": [{"t": 20.5, "p": 3.1}, {"t": 90.0, "p": -5.0}]}
    scores = server.client.post("/v1/anomaly/score", json=body).json()["data"]
    assert scores[1]["score"] > scores[0]["score"]
    assert scores[1]["is_anomaly"]
    found = server.client.post("/v1/anomaly/detect", json=body).json()["data"]
    assert 1 in [row["index"] for row in found]
    listed = server.client.get("/v1/anomaly/models").json()["data"]
    assert "life" in [entry["id"] for entry in listed]
    assert server.client.get("/v1/anomaly/models/life").json()["samples"] == 200
    assert server.client.delete("/v1/anomaly/models/life").json()["deleted"] is True
    assert server.client.post("/v1/anomaly/score", json=body).status_code == 404


def test_health_ready_and_documents(server: RunningServer) -> None:
    assert server.client.get("/health").json() == {"status": "ok"}
    readiness = server.readiness()
    assert readiness["ready"] is True
    assert set(readiness["deployments"]) == {
        "Ingress", "Generation", "Embedding", "Rerank", "Classification", "Ocr", "Anomaly",
    }  # fmt: skip
    document = server.client.get("/openapi.json").json()
    assert "/v1/chat/completions" in document["paths"]
    assert "/v1/embeddings" in server.client.get("/docs").text
