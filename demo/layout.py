"""The demo's project and picture, made by QGIS: the map with its legend, title and scale bar."""

from __future__ import annotations

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsLayoutExporter,
    QgsLayoutItemLabel,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutItemScaleBar,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLegendRenderer,
    QgsLegendStyle,
    QgsMapLayerLegendUtils,
    QgsPrintLayout,
    QgsProject,
    QgsRasterLayer,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QFont

# UTM zone 21 south: the scene is in degrees, a map wants metres.
MAP_CRS = QgsCoordinateReferenceSystem("EPSG:32721")
DPI = 150
AMAZON_CREDIT = "Contains modified Copernicus\nSentinel data; polygons from\nRStoolbox (GPL-3).\nMapped by Deepscape."
BUILDINGS_CREDIT = (
    "Imagery: HOTOSM, OpenAerialMap\n(CC BY 4.0). Footprints to learn from:\n(c) OpenStreetMap contributors\n(ODbL). "
    "Mapped by Deepscape."
)


def load(project, layer, visible=True):
    """Add a layer to the project, refusing one that QGIS cannot read."""
    if not layer.isValid():
        raise RuntimeError(f"QGIS cannot read {layer.source()}")
    project.addMapLayer(layer, False)
    node = project.layerTreeRoot().addLayer(layer)
    node.setItemVisibilityChecked(visible)
    return layer


def project_and_picture(output, data, title):
    """Write ``project.qgz`` (opens styled) and ``map.png`` into the output folder."""
    project = QgsProject.instance()
    project.clear()
    project.setTitle(title)
    land_cover = QgsRasterLayer(str(output / "map.tif"), "Land cover")
    project.setCrs(land_cover.crs())
    load(project, QgsVectorLayer(str(data / "validation_polygons.gpkg"), "Validation polygons"), visible=False)
    load(project, QgsVectorLayer(str(data / "train_polygons.gpkg"), "Training polygons"), visible=False)
    load(project, land_cover)
    load(project, QgsRasterLayer(str(output / "confidence.tif"), "Confidence"), visible=False)
    scene = load(project, QgsRasterLayer(str(data / "sen2.tif"), "Sentinel-2"), visible=False)
    true_colour(scene)
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    layout.setName("Land cover")
    compose(layout, [land_cover], title, MAP_CRS, AMAZON_CREDIT)
    save(project, layout, output)


def save(project, layout, output):
    """Write ``project.qgz`` and ``map.png``."""
    project.layoutManager().addLayout(layout)
    project.writeEntry("Paths", "/Absolute", False)
    if not project.write(str(output / "project.qgz")):
        raise RuntimeError(f"The project could not be written: {project.error()}")
    # Rendered and saved here: exportToImage would try to georeference the PNG, which GDAL refuses with an error.
    if not QgsLayoutExporter(layout).renderPageToImage(0, dpi=DPI).save(str(output / "map.png")):
        raise RuntimeError("The map could not be drawn.")


def buildings_project_and_picture(output, data, title):
    """The same for the demo of buildings: the map over the orthophoto, footprints and areas beside it."""
    project = QgsProject.instance()
    project.clear()
    project.setTitle(title)
    mapped = QgsRasterLayer(str(output / "map.tif"), "Buildings")
    project.setCrs(mapped.crs())
    project.setEllipsoid("EPSG:7030")  # the scale bar measures on the ground, which Web Mercator stretches
    load(project, QgsVectorLayer(str(data / "areas.gpkg"), "Areas"), visible=False)
    load(project, QgsVectorLayer(str(data / "buildings.gpkg"), "Reference footprints"), visible=False)
    load(project, QgsVectorLayer(str(output / "buildings.gpkg"), "Mapped footprints"), visible=False)
    load(project, mapped)
    mapped.setOpacity(0.6)
    scene = load(project, QgsRasterLayer(str(data / "ortho.tif"), "Orthophoto"))
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    layout.setName("Buildings")
    compose(layout, [mapped, scene], title, mapped.crs(), BUILDINGS_CREDIT, 50)
    save(project, layout, output)


def true_colour(scene):
    """Show the scene in its true colours: bands B4, B3, B2, stretched between the 2nd and 98th percentile."""
    from qgis.core import QgsContrastEnhancement, QgsMultiBandColorRenderer, QgsRasterMinMaxOrigin

    scene.setRenderer(QgsMultiBandColorRenderer(scene.dataProvider(), 4, 3, 2))
    scene.setContrastEnhancement(QgsContrastEnhancement.StretchToMinimumMaximum, QgsRasterMinMaxOrigin.CumulativeCut)


def compose(layout, layers, title, crs, credit, segment=250):
    """Put map, title, legend, scale bar and source onto a page.

    Args:
        layout: an empty one.
        layers: what is drawn, from top to bottom; the first one is the map that the legend is of.
        title: above the map.
        crs: of the map.
        credit: where the data come from.
        segment: metres of a segment of the scale bar.
    """
    land_cover = layers[0]
    page = layout.pageCollection().page(0)
    page.setPageSize(QgsLayoutSize(240, 190))

    map_item = QgsLayoutItemMap(layout)
    layout.addLayoutItem(map_item)
    map_item.attemptMove(QgsLayoutPoint(8, 20))
    map_item.attemptResize(QgsLayoutSize(170, 160))
    map_item.setLayers(layers)
    map_item.setKeepLayerSet(True)
    map_item.setCrs(crs)
    transform = QgsCoordinateTransform(land_cover.crs(), crs, QgsProject.instance())
    # zoomToExtent keeps the item's size, but only once it has an extent.
    map_item.setExtent(transform.transformBoundingBox(land_cover.extent()))
    map_item.attemptResize(QgsLayoutSize(170, 160))
    map_item.zoomToExtent(transform.transformBoundingBox(land_cover.extent()))
    map_item.setFrameEnabled(True)

    heading = QgsLayoutItemLabel(layout)
    heading.setText(title)
    heading.setFont(QFont("DejaVu Sans", 18, QFont.Bold))
    layout.addLayoutItem(heading)
    heading.attemptMove(QgsLayoutPoint(8, 6))
    heading.attemptResize(QgsLayoutSize(224, 12))

    legend = QgsLayoutItemLegend(layout)
    legend.setLinkedMap(map_item)
    legend.setAutoUpdateModel(False)
    root = legend.model().rootGroup()
    root.clear()
    node = root.addLayer(land_cover)
    QgsLegendRenderer.setNodeLegendStyle(node, QgsLegendStyle.Hidden)
    # The band's name is the first entry of a raster's legend; the classes follow.
    classes = legend.model().layerLegendNodes(node)[1:]
    QgsMapLayerLegendUtils.setLegendNodeOrder(node, list(range(1, len(classes) + 1)))
    legend.model().refreshLayerLegend(node)
    layout.addLayoutItem(legend)
    legend.attemptMove(QgsLayoutPoint(184, 20))

    scale = QgsLayoutItemScaleBar(layout)
    scale.setLinkedMap(map_item)
    scale.setStyle("Single Box")
    scale.setUnits(QgsUnitTypes.DistanceMeters)
    scale.setUnitLabel("m")
    scale.setUnitsPerSegment(segment)
    scale.setNumberOfSegments(2)
    scale.setNumberOfSegmentsLeft(0)
    layout.addLayoutItem(scale)
    scale.attemptMove(QgsLayoutPoint(184, 150))

    source = QgsLayoutItemLabel(layout)
    source.setText(credit)
    source.setFont(QFont("DejaVu Sans", 7))
    layout.addLayoutItem(source)
    source.attemptMove(QgsLayoutPoint(184, 166))
    source.attemptResize(QgsLayoutSize(52, 20))
