from block_devices import *
