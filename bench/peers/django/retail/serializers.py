"""Sales as JSON, with the names that Autonomy's API uses."""

from rest_framework import serializers

from retail.models import Sale


class SaleSerializer(serializers.ModelSerializer):
    createdAt = serializers.DateTimeField(source="created_at", read_only=True)
    updatedAt = serializers.DateTimeField(source="updated_at", read_only=True)
    receiptNumber = serializers.RegexField(r"^[0-9]+\Z", source="receipt_number", max_length=16)
    soldAt = serializers.DateTimeField(source="sold_at")
    businessDate = serializers.DateField(source="business_date")
    customerNumber = serializers.CharField(source="customer_number", max_length=12, required=False, allow_null=True)
    totalAmount = serializers.DecimalField(source="total_amount", max_digits=14, decimal_places=2, min_value=0)
    storeId = serializers.UUIDField(source="store_id")
    customerId = serializers.UUIDField(source="customer_id", required=False, allow_null=True)

    class Meta:
        model = Sale
        fields = [
            "id", "version", "createdAt", "updatedAt", "receiptNumber", "status", "soldAt", "businessDate", "customerNumber",
            "totalAmount", "currency", "loyalty", "settlement", "storeId", "customerId", "lines",
        ]  # fmt: skip
        # The unique indexes decide. DRF's own validators would ask the database once for each Sale of a list.
        extra_kwargs = {"id": {"required": False, "validators": []}}
        validators = []
