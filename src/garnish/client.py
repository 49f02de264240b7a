"""``Client``: predictions from a garnish server (decision 023). NumPy and Pillow alone, no torch.

Shape letters: H W pixels.
"""

from __future__ import annotations

import io
import math
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self, final, overload
from urllib.parse import quote, urlencode

import numpy as np
from PIL import Image

from garnish.bundles.bundle_json import bundle_folder, bundle_of_run
from garnish.checking.arguments import checked
from garnish.checking.plain_data import Json, integers, reals
from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction
from garnish.errors import BundleError, DataError, GarnishError, OptionError, one_line, shown
from garnish.files.given_pictures import PlainPicture, no_picture, pixels_of
from garnish.files.path_text import given_path
from garnish.files.pictures import MAX_BYTES
from garnish.files.regular import read_regular
from garnish.pictures.bands import Bands
from garnish.predicting.overlapping import TakenPicture
from garnish.serving.connections import Connections, ServerError
from garnish.serving.given_bytes import picture_of
from garnish.serving.npz_answer import read_npz_answer
from garnish.serving.refusals import Busy

#: What a picture may be: a file, its bytes, a PIL image or an array.
Picture = PlainPicture | bytes


@final
class Client:
    """A server. Any number of threads may ask at a time; each has its connection, which it keeps. Proxies are not used.

    Args:
        url: its address, such as ``http://127.0.0.1:8000``.
        token: of ``garnish serve``, where it asks for one.
        timeout: seconds to wait for the server to take or to send something.

    Raises:
        OptionError: no address of a server.
    """

    @checked
    def __init__(
        self, url: str, token: str | None = None, timeout: Annotated[float, reals(0, 86400, above=True)] = 60
    ) -> None:
        self.url = url.rstrip("/")
        self._server = Connections(url, token, float(timeout))
        self._bands: dict[str, Bands] = {}

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads; what asks later opens new ones."""
        self._server.close()

    @checked
    def ready(self) -> bool:
        """Whether the server takes requests: it is there, warm, and not stopping."""
        try:
            return self._server.ask("GET", "/ready")[0] == 200
        except (Busy, ServerError):
            return False

    @checked
    def bundles(self) -> tuple[str, ...]:
        """Names of the bundles that are served."""
        found = self._server.json("GET", "/v1/bundles").get("bundles")
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self._server.odd("/v1/bundles")
        return tuple(found)

    @checked
    def about(self, name: str) -> dict[str, Json]:
        """What the server says of a bundle: its tasks, bands, size and digest. Raises UnknownBundle."""
        return self._server.json("GET", _place(name))

    @checked
    def put(self, name: str, folder: str | Path) -> dict[str, Json]:
        """Send a bundle, in place of one of that name; what the server says of it then.

        Args:
            name: as requests will call it.
            folder: with its ``bundle.json`` and ``weights.safetensors``; of a run's folder its best is sent.

        Raises:
            BundleError: such a folder is not there, or the server refuses the bundle. ServerError: as everywhere.
        """
        place = bundle_folder(bundle_of_run(folder, "folder"))
        border, body = secrets.token_hex(16), bytearray()
        for part in ("bundle.json", "weights.safetensors"):
            try:
                data = read_regular(place / part, MAX_BYTES)
            except OSError as error:
                raise BundleError(f"{place / part}: cannot be read ({one_line(error, 120)}); give a bundle") from error
            head = f'--{border}\r\nContent-Disposition: form-data; name="{part}"; filename="{part}"\r\n'
            body += f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data + b"\r\n"
        body += f"--{border}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
        self._bands.pop(name, None)
        return self._server.json("PUT", _place(name), bytes(body), kind, refusal=BundleError)

    @checked
    def remove(self, name: str) -> None:
        """Have the server forget a bundle. Raises UnknownBundle."""
        self._bands.pop(name, None)
        self._server.ask("DELETE", _place(name))

    @overload
    def predict(
        self,
        picture: Picture,
        bundle: str | None = None,
        tasks: Sequence[str] | None = None,
        *,
        confidence: bool = False,
        retries: int = 0,
    ) -> Prediction[np.ndarray, Decoding]: ...

    @overload
    def predict(
        self,
        picture: Picture,
        bundle: list[str] | tuple[str, ...],
        tasks: Sequence[str] | None = None,
        *,
        confidence: bool = False,
        retries: int = 0,
    ) -> dict[str, Prediction[np.ndarray, Decoding]]: ...

    @checked
    def predict(
        self,
        picture: Picture,
        bundle: str | list[str] | tuple[str, ...] | None = None,
        tasks: Sequence[str] | None = None,
        *,
        confidence: bool = False,
        retries: Annotated[int, integers(0, 1000)] = 0,
    ) -> Prediction[np.ndarray, Decoding] | dict[str, Prediction[np.ndarray, Decoding]]:
        """All maps of one picture, those of the server number by number.

        Args:
            picture: a file or its bytes, sent as they are; a PIL image or an array (H, W, 3) or (H, W) uint8, sent as
                PNG; of other bands an array (H, W, C) of the numbers of a file, sent as ``.npy``.
            bundle: a name, or several; None: the only one that is served.
            tasks: names: ``seg`` of every bundle that has it, ``street/seg`` of one; None: all. Of several bundles
                those are left out that have none of them.
            confidence: of classes also the probability of the one chosen, as ``Prediction.confidence``.
            retries: how often to ask again where the server is busy, each time as late as it says.

        Returns:
            Of a name (or None) the prediction, whose maps ``for task in prediction`` names; of a list or tuple, also of
            one name, name → prediction.

        Raises:
            DataError: a picture that cannot be read, here or there, or a task or bundle that does not take it.
            OptionError: an empty list, or tasks of several bundles where none is named.
            Busy: the server is; ``retry_after`` says for how many seconds. TooLarge, UnknownBundle, ServerError.
        """
        names = [bundle] if isinstance(bundle, str) else list(bundle or ())
        if bundle is not None and not names:
            raise OptionError("Client.predict: bundle: an empty list; name some, or leave it out")
        if tasks is not None and not tasks:
            raise OptionError("Client.predict: tasks: an empty list; name some, or leave it out")
        if not names and len(of := sorted({task.partition("/")[0] for task in tasks or () if "/" in task})) > 1:
            raise OptionError(
                f"Client.predict: tasks: are of several bundles; give bundle=[{', '.join(map(repr, of))}]"
            )
        asked = [("bundle", name) for name in names] + [("tasks", task) for task in tasks or ()]
        target = "/v1/predict?" + urlencode(asked + [("confidence", "true")] * confidence, errors="replace")
        kind = {"Content-Type": "application/octet-stream", "Accept": "application/x-npz"}
        data = _sent(picture)
        for left in range(retries, -1, -1):
            try:
                _, answer = self._server.ask("POST", target, data, kind, most=MAX_BYTES)
                break
            except Busy as busy:
                if not left:
                    raise
                time.sleep(busy.retry_after)
        file = Path(picture) if isinstance(picture, str | Path) else None
        found = self._predictions(data, answer, file)
        fits = len(found) == 1 if not names else found.keys() <= set(names)  # who has none of the tasks is left out
        if not found or not fits or (tasks is None and len(found) < len(set(names))):
            raise self._server.odd("/v1/predict")
        return found if bundle is not None and not isinstance(bundle, str) else next(iter(found.values()))

    def _predictions(
        self, data: bytes, answer: bytes, file: Path | None
    ) -> dict[str, Prediction[np.ndarray, Decoding]]:
        """What an answer in npz holds."""
        seen: dict[str, TakenPicture] = {}

        def size_for(bundle: str) -> tuple[int, int]:
            seen[bundle] = taken = picture_of(data, self._bands_of(bundle), math.inf)
            return taken.shown.shape[0], taken.shown.shape[1]

        try:
            found = read_npz_answer(answer, size_for)
        except GarnishError:
            raise
        except Exception as error:  # damaged archives make zipfile and NumPy raise anything
            raise self._server.odd("/v1/predict", error) from error
        stem = "picture" if file is None else file.stem
        return {
            name: Prediction(seen[name].shown, of.maps, of.tasks, stem, {}, file, seen[name].place, of.confidence)
            for name, of in found.items()
        }

    def _bands_of(self, bundle: str) -> Bands:
        if (bands := self._bands.get(bundle)) is None:
            told = self._server.json("GET", _place(bundle)).get("bands")
            bands = Bands() if told is None else Bands.read(told, f"bands of bundle {shown(bundle)}", ServerError)
            self._bands[bundle] = bands
        return bands


def _place(name: str) -> str:
    return f"/v1/bundles/{quote(name, safe='', errors='replace')}"


def _sent(picture: object) -> bytes:
    """A picture as the server reads it."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        try:
            return read_regular(given_path(picture, "picture", DataError), MAX_BYTES)
        except OSError as error:
            raise DataError(f"{picture}: cannot be read ({one_line(error, 120)}); check the path") from error
    data = io.BytesIO()
    if isinstance(picture, Image.Image):
        _write_png(pixels_of(picture), data, grey=picture.mode == "L")
    elif isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] in ((), (3,)):
        _write_png(pixels_of(picture), data, grey=picture.ndim == 2)
    elif isinstance(picture, np.ndarray) and picture.dtype.kind in "uif":
        np.save(data, picture, allow_pickle=False)
    else:
        raise no_picture(picture)
    return data.getvalue()


def _write_png(pixels: np.ndarray, data: io.BytesIO, *, grey: bool) -> None:
    """(H, W, 3) as PNG; of one band where that is what was given."""
    Image.fromarray(pixels[..., 0] if grey else pixels).save(data, format="PNG", compress_level=1)
