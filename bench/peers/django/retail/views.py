"""The viewset of Sales."""

from django.db import IntegrityError
from rest_framework import mixins, status
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.views import exception_handler
from rest_framework.viewsets import GenericViewSet

from retail import publisher
from retail.models import Sale
from retail.serializers import SaleSerializer


class PageOf100(CursorPagination):
    """Unlike DRF's pages by number it counts nothing."""

    page_size = 100
    ordering = "id"


# Each request is one statement in autocommit mode, so what was saved is committed; a transaction around it would only add two round trips.
class SaleViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet):
    queryset = Sale.objects.all()
    serializer_class = SaleSerializer
    pagination_class = PageOf100

    def create(self, request):
        several = isinstance(request.data, list)
        serializer = self.get_serializer(data=request.data, many=several)
        serializer.is_valid(raise_exception=True)
        if several:
            serializer.instance = Sale.objects.bulk_create([Sale(**sale) for sale in serializer.validated_data])
        else:
            serializer.save()
        if publisher.is_on():
            publish("created", serializer.data if several else [serializer.data])
        minimal = request.headers.get("Prefer") == "return=minimal"
        return Response(None if minimal else serializer.data, status=status.HTTP_201_CREATED)

    def partial_update(self, request, pk):
        sale = self.get_object()
        serializer = self.get_serializer(sale, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        serializer.save(version=sale.version + 1)
        if publisher.is_on():
            publish("updated", [serializer.data])
        return Response(serializer.data)


def publish(operation, sales):
    for sale in sales:
        publisher.publish(f"retail.Sale.{operation}.{sale['status']}", sale)


def problem(error, context):
    """DRF knows no answer to the unique index's refusal."""
    if isinstance(error, IntegrityError):
        return Response({"detail": "such a sale is there already"}, status=status.HTTP_409_CONFLICT)
    return exception_handler(error, context)
