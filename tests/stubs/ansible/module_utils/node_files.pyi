from node_files import *
