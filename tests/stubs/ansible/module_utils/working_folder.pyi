from working_folder import *
