"""Do high-resolution spectrograms help a CNN tag sounds? Helpers of the numbered notebooks.

One direction of flow, each module knowing only the ones before it::

    datasets -> clips -> variants -> spectrograms -> store -> training -> evaluation -> report
"""
