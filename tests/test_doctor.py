from __future__ import annotations

import subprocess
import sys

from vo_stream.doctor import examine


def test_this_machine_is_sound() -> None:
    findings = {f.what: f for f in examine()}
    assert all(f.ok for f in findings.values() if f.required)
    assert findings["backend geometric"].ok
    assert findings["numpy"].detail[0].isdigit()


def test_a_library_that_does_not_load_is_found_not_raised() -> None:
    """With a cv2 that cannot be imported the doctor still answers, and says so."""
    code = "import sys; sys.modules['cv2'] = None\nfrom vo_stream.cli import main\nmain(['doctor'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert "--  backends" in done.stdout
    assert "cv2" in done.stdout
