"""The paths, as Autonomy has them."""

from rest_framework.routers import SimpleRouter

from retail.views import SaleViewSet

router = SimpleRouter(trailing_slash=False)
router.register("api/retail/sales", SaleViewSet)
urlpatterns = router.urls
