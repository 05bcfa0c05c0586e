# The matplotlib backend of query mode: figures are drawn by Agg and sent to the client as PNG images by
# plt.show(), or at the end of the cell that left them open.
import sys

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FigureCanvas = FigureCanvasAgg
FigureManager = FigureManagerBase


def new_figure_manager(num, *args, FigureClass=Figure, **kwargs):
    return new_figure_manager_given_figure(num, FigureClass(*args, **kwargs))


def new_figure_manager_given_figure(num, figure):
    return FigureManagerBase(FigureCanvasAgg(figure), num)


def show(*args, **kwargs):
    display = sys.modules.get("_bai_display")
    if display is None:  # a script started from a cell: nobody to show it to
        return
    try:
        for manager in Gcf.get_all_fig_managers():
            display.publish_figure(manager.canvas.figure)
    finally:
        Gcf.destroy_all()
