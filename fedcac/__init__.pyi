from fedcac.output import RoundOutput as RoundOutput
from fedcac.output import read_output as read_output

__all__ = ["RoundOutput", "__version__", "read_output"]

__version__: str
